import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interlcm_jax.errors import InterLCMError
from interlcm_jax.imaging.color_fix import METHODS, color_fix


def test_unknown_method_names_the_known_ones():
    x = jnp.zeros((1, 4, 4, 3))
    with pytest.raises(InterLCMError, match="'wavlet' doesn't exist; choose one of wavelet, adain, none"):
        color_fix(x, x, "wavlet")


@pytest.mark.parametrize("method", METHODS)
def test_an_image_fixed_by_itself_stays(method):
    x = jax.random.uniform(jax.random.key(0), (2, 33, 20, 3), minval=-1)
    np.testing.assert_allclose(color_fix(x, x, method), x, atol=1e-6)


@pytest.mark.parametrize("method", ["wavelet", "adain"])
def test_a_colour_cast_goes(method):
    x = jax.random.uniform(jax.random.key(0), (2, 64, 64, 3), minval=-1)
    cast = x + jnp.array([0.3, 0.0, -0.2]).reshape(1, 1, 1, 3)
    np.testing.assert_allclose(color_fix(cast, x, method), x, atol=1e-5)
