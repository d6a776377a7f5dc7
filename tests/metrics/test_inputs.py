import jax.numpy as jnp
import numpy as np
import pytest

from interlcm_jax.errors import InterLCMError
from interlcm_jax.metrics.inputs import both, levels, pairs


def test_levels_are_those_of_the_saved_file():
    np.testing.assert_array_equal(levels(jnp.uint8([[[[0, 7, 255]]]])), [[[[0, 7, 255]]]])
    np.testing.assert_array_equal(levels(jnp.float16([[[[-3, 0, 1.5]]]])), [[[[0, 128, 255]]]])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("images", [jnp.zeros((4, 4, 3)), jnp.zeros((1, 4, 4, 1)), jnp.zeros((1, 4, 4, 3), jnp.int32)])
def test_what_is_no_image_is_refused(images):
    with pytest.raises(InterLCMError, match=r"images must be \(B, H, W, 3\)"):
        levels(images)


@pytest.mark.usefixtures("unchecked")
def test_pairs_are_equally_many():
    x = jnp.zeros((2, 4, 4, 3), jnp.uint8)
    with pytest.raises(InterLCMError, match="2 restored images, but 1 originals"):
        pairs(x, x[:1])


def test_both():
    first, second = jnp.arange(6.0).reshape(3, 2), 10 + jnp.arange(6.0).reshape(3, 2)
    a, b = both(lambda x: x[:, :1] - 1, first, second)
    np.testing.assert_array_equal(a, first[:, :1] - 1)
    np.testing.assert_array_equal(b, second[:, :1] - 1)
