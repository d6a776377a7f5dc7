import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interlcm_jax.errors import InterLCMError
from interlcm_jax.imaging.color_fix import METHODS, color_fix, towards_input


def test_unknown_method_names_the_known_ones():
    x = jnp.zeros((1, 4, 4, 3))
    with pytest.raises(InterLCMError, match="'wavlet' doesn't exist; choose one of wavelet, adain, none"):
        color_fix(x, x, "wavlet")


@pytest.mark.parametrize("method", METHODS)
def test_an_image_fixed_by_itself_stays(method):
    x = jax.random.uniform(jax.random.key(0), (2, 33, 20, 3), minval=-1)
    np.testing.assert_allclose(color_fix(x, x, method), x, atol=1e-6)


@pytest.mark.parametrize("method", ["wavelet", "adain"])
def test_a_color_cast_goes(method):
    x = jax.random.uniform(jax.random.key(0), (2, 64, 64, 3), minval=-1)
    cast = x + jnp.array([0.3, 0.0, -0.2]).reshape(1, 1, 1, 3)
    np.testing.assert_allclose(color_fix(cast, x, method), x, atol=1e-5)


def waves(length: float) -> jax.Array:
    """A wave of that many pixels along the rows."""
    x = jnp.sin(2 * jnp.pi * jnp.arange(256.0) / length)
    return jnp.broadcast_to(x[None, None, :, None], (1, 256, 256, 3))


def middle(x: jax.Array) -> np.ndarray:
    return np.asarray(x)[:, 64:-64, 64:-64]


def test_fidelity_takes_the_shapes_of_the_input_and_leaves_the_details():
    restored, lq = 0.3 * waves(64) + 0.2 * waves(4), 0.5 * waves(64) - 0.2 * waves(4)
    half, full = (middle(towards_input(restored, lq, jnp.float32(f))) for f in (0.5, 1))
    # Wide waves pass three levels of blur almost whole (0.90), fine ones hardly (0.03).
    np.testing.assert_allclose(full, middle(0.48 * waves(64) + 0.2 * waves(4)), atol=0.02)
    np.testing.assert_allclose(half, middle(0.39 * waves(64) + 0.2 * waves(4)), atol=0.02)
    np.testing.assert_array_equal(towards_input(restored, lq, jnp.float32(0)), restored)
