"""The check that `conftest.py` sets up: an annotation of the package that an array doesn't fit is an error."""

import jax.numpy as jnp
import jaxtyping
import pytest

from interlcm_jax.imaging.resize import bicubic_resize
from interlcm_jax.metrics.image import psnr

IMAGE = jnp.zeros((1, 16, 16, 3))


@pytest.mark.parametrize("other", [IMAGE[0], IMAGE[:, :8], IMAGE[..., :1], IMAGE.astype(jnp.int32)])
def test_an_array_of_another_shape_or_kind(other):
    psnr(IMAGE, IMAGE)
    with pytest.raises(jaxtyping.TypeCheckError, match=r"interlcm_jax\.metrics\.image\.psnr"):
        psnr(IMAGE, other)


def test_what_tests_pass_for_other_arguments_is_left_alone():
    assert bicubic_resize(IMAGE, [8, 8]).shape == (1, 8, 8, 3)
