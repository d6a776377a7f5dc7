import jax.numpy as jnp
import numpy as np
import pytest

from interlcm_jax.errors import InterLCMError
from interlcm_jax.metrics.inputs import both, levels, pairs


def test_levels_are_those_of_the_saved_file():
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    np.testing.assert_array_equal(levels(jnp.asarray(every)), every)
    floats = jnp.asarray(every / 127.5 - 1, jnp.float32)
    for shift in (-0.0039, 0, 0.0039):  # half a level is 0.00392
        np.testing.assert_array_equal(levels(floats + shift), every)
    beyond = jnp.array([[[[-3.0, 0.0, 1.5]]]])
    np.testing.assert_array_equal(levels(beyond), [[[[0, 128, 255]]]])


@pytest.mark.parametrize("images", [jnp.zeros((4, 4, 3)), jnp.zeros((1, 4, 4, 1)), jnp.zeros((1, 4, 4, 3), jnp.int32)])
def test_what_is_no_image_is_refused(images):
    with pytest.raises(InterLCMError, match=r"images must be \(B, H, W, 3\)"):
        levels(images)


def test_pairs_are_equally_many():
    x = jnp.zeros((2, 4, 4, 3), jnp.uint8)
    with pytest.raises(InterLCMError, match="2 restored images, but 1 originals"):
        pairs(x, x[:1])


def test_both():
    first, second = jnp.arange(6.0).reshape(3, 2), 10 + jnp.arange(6.0).reshape(3, 2)
    a, b = both(lambda x: x[:, :1] - 1, first, second)
    np.testing.assert_array_equal(a, first[:, :1] - 1)
    np.testing.assert_array_equal(b, second[:, :1] - 1)
