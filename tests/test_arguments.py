"""What `InterLCM` says of arguments that don't fit, where `tests/test_pipeline.py` needs no model for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interlcm_jax import InterLCM, InterLCMError
from interlcm_jax.arguments import as_noise, check_color_fix, check_faces, check_fidelity, check_images
from interlcm_jax.model_folder import ModelConfig

CONFIG = ModelConfig.miniature()
FACE = np.zeros((64, 64, 3), np.uint8)
FLOATS = np.linspace(-1, 1, 64 * 64 * 3, dtype=np.float32).reshape(1, 64, 64, 3)

pytestmark = pytest.mark.usefixtures("unchecked")


class Tensor:
    """Stands for PyTorch's."""

    shape, ndim, dtype = (1, 64, 64, 3), 4, "float32"


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("face.png", "lq is of type str, but must be an array of JAX or NumPy"),
        ([FACE], "lq is of type list"),
        (None, "lq is of type NoneType"),
        (Tensor(), r"lq is of type tests\.test_arguments\.Tensor"),
        ((FLOATS + 1) * 127.5, "lq has values from 0 to 255, but floats must be in "),
        (FLOATS * np.nan, "lq has values from nan to nan"),
        (FLOATS * np.float32(1e9), r"lq has values from -1e\+09 to 1e\+09"),
        (((FLOATS + 1) * 127.5).astype(jnp.bfloat16), "lq has values from 0 to 255"),
    ],
)
def test_images_that_cannot_be_restored(images, message):
    with pytest.raises(InterLCMError, match=message):
        check_images(images, CONFIG)


@pytest.mark.parametrize("images", [FLOATS, FLOATS * 1.2, FLOATS.astype(np.float16), FACE[None], np.zeros_like(FLOATS)])
def test_images_in_range_pass_without_a_word(images):
    check_images(images, CONFIG)


def test_images_that_may_be_in_another_range_are_told_of():
    with pytest.warns(UserWarning, match="lq has values from 0 to 1; floats are taken to be in "):
        check_images((FLOATS + 1) / 2, CONFIG)


def test_images_on_the_device_are_not_waited_for():
    with jax.transfer_guard("disallow"):
        check_images(jax.device_put((FLOATS + 1) * 127.5), CONFIG)


@pytest.mark.parametrize(
    ("faces", "message"),
    [
        ([FACE, FACE[:32]], r"face 1 is uint8 \(32, 64, 3\), but all must be as the first, uint8 \(64, 64, 3\)"),
        ([FACE, FLOATS[0]], r"face 1 is float32 \(64, 64, 3\)"),
        ([FACE[..., 0]], r"face 0 is a .* of shape \(64, 64\), but must be a NumPy array \(H, W, 3\)"),
        (["a.png"], "face 0 is a builtins.str"),
        ([Tensor()], "face 0 is a .*Tensor"),
    ],
)
def test_faces_that_make_no_batch(faces, message):
    with pytest.raises(InterLCMError, match=message):
        list(check_faces(faces))


def test_no_faces_make_no_batch():
    assert list(check_faces([])) == []


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        ("none", "noise is of type str, but must be an array of numbers"),
        ([[1], [1, 2]], "noise is of type list"),
        (np.zeros(3, complex), "noise is complex"),
    ],
)
def test_what_is_no_noise(noise, message):
    with pytest.raises(InterLCMError, match=message):
        as_noise(noise)


def test_other_options():
    with pytest.raises(InterLCMError, match=r"color_fix is \['wavelet'\], but must be one of"):
        check_color_fix(["wavelet"], CONFIG)
    with pytest.raises(InterLCMError, match=r"fidelity is float32\[2\], but must be one number"):
        jax.eval_shape(check_fidelity, jnp.zeros(2))
    assert check_fidelity(np.float32(0.5)) == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"), [((3,), "model is of type int"), ((None, "int8"), "dtype is 'int8'")]
)
def test_models_that_are_none(arguments, message):
    with pytest.raises(InterLCMError, match=message):
        InterLCM.from_pretrained(*arguments)
    with pytest.raises(InterLCMError, match="sharding is of type str, but must be a sharding, a function or None"):
        InterLCM.from_pretrained(None, sharding="data")
    with pytest.raises(InterLCMError, match="networks is of type NoneType"):
        InterLCM(CONFIG, None)
