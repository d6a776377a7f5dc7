import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interlcm_jax.imaging.opencv import linear_resize, read_gray


def images(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((512, 512), (128, 128)),  # Deg
        ((512, 512), (256, 256)),  # LMD
        ((300, 501), (128, 128)),
        ((64, 96), (256, 256)),
        ((37, 131), (91, 60)),
        ((128, 128), (128, 128)),
        ((1, 3), (5, 7)),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_linear_resize_gives_opencvs_levels(shape, size, channels):
    x = images(2, *shape, channels)
    expected = np.stack([cv2.resize(image, size[::-1]).reshape(*size, channels) for image in x])
    actual = jax.jit(linear_resize, static_argnums=1)(x, size)
    assert actual.dtype == jnp.uint8
    np.testing.assert_array_equal(actual, expected)


def test_gray_is_what_opencv_reads_from_png(tmp_path):
    x = images(1, 300, 400, 3)
    x[0, :2] = np.array([[255], [0]])[:, None]  # white and black stay so
    cv2.imwrite(str(tmp_path / "x.png"), x[0, ..., ::-1])
    expected = cv2.imread(str(tmp_path / "x.png"), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(read_gray(x)[0, ..., 0], expected)
    # Not the usual gray: every other pixel is a level darker.
    assert (cv2.cvtColor(x[0], cv2.COLOR_RGB2GRAY) != expected).mean() > 0.4
