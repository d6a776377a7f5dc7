"""uint8 and floats in [-1, 1]: every level and back, in NumPy and in JAX."""

import jax.numpy as jnp
import numpy as np
import pytest

from interlcm_jax.imaging.pixels import to_float, to_uint8

LEVELS = np.arange(256, dtype=np.uint8)


@pytest.mark.parametrize("xp", [np, jnp])
def test_every_level_and_back(xp):
    floats = to_float(xp.asarray(LEVELS))
    assert floats.dtype == np.float32
    assert type(floats) is type(xp.zeros(1))
    np.testing.assert_allclose(floats, np.linspace(-1, 1, 256), atol=1e-7)
    for shift in (-0.0039, 0, 0.0039):  # half a level is 0.00392
        np.testing.assert_array_equal(to_uint8(floats + shift), LEVELS)
    assert to_uint8(floats).dtype == np.uint8


def test_floats_beyond_the_range_are_clipped():
    np.testing.assert_array_equal(to_uint8(np.float32([-3, 0, 1.5])), [0, 128, 255])


def test_floats_are_not_scaled_again():
    np.testing.assert_array_equal(to_float(np.float32([-1, 0.5, 1.25])), np.float32([-1, 0.5, 1.25]))
