import cv2
import numpy as np
import pytest
from skimage import data

from interlcm_jax.imaging.gray import is_gray, to_gray


def random_levels(shape=(64, 48), seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_equal_channels_are_gray_and_stay():
    gray = np.repeat(random_levels()[..., None], 3, axis=-1)
    assert is_gray(gray)
    # The weights add up to 0.9999: no level moves.
    np.testing.assert_array_equal(to_gray(gray), gray)


def test_colors_are_not_gray():
    assert not is_gray(random_levels((64, 48, 3)))


def test_an_even_tint_is_gray_and_goes():
    levels = random_levels().clip(40, 200)
    tinted = np.dstack([levels + 30, levels, levels - 40]).astype(np.uint8)
    assert is_gray(tinted)
    plain = to_gray(tinted)
    assert (plain == plain[..., :1]).all()
    expected = 0.2989 * tinted[..., 0] + 0.5870 * tinted[..., 1] + 0.1140 * tinted[..., 2]
    assert np.abs(plain[..., 0] - expected).max() <= 0.5


@pytest.mark.parametrize("hue", range(0, 180, 20))
def test_a_toned_photo_is_gray_in_any_hue(hue):
    photo = toned(data.astronaut()[:256, :256], hue, saturation=110)
    assert differing(photo) > 10 * 10  # the release would take it for a color photo
    assert is_gray(photo)
    noisy = (photo + np.random.default_rng(2).normal(0, 6, photo.shape)).clip(0, 255).astype(np.uint8)
    assert is_gray(cv2.imdecode(cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR))


@pytest.mark.parametrize("share", [0.5, 0.75, 1.0])
def test_a_color_photo_is_not_however_pale(share):
    photo = data.astronaut()[:256, :256]
    assert not is_gray((share * photo + (1 - share) * to_gray(photo)).astype(np.uint8))


def test_what_the_release_takes_for_gray_is_gray():
    rng = np.random.default_rng(1)
    pixels = (100 + rng.normal(0, 2.2, (1000, 1500, 3))).round().astype(np.uint8)
    assert 9 < differing(pixels) < 10
    assert is_gray(pixels)
    assert is_gray(pixels[:10, :10])
    assert is_gray(pixels[:1, :1])


def toned(photo: np.ndarray, hue: int, saturation: int) -> np.ndarray:
    """Black and white stay as they are; a middle gray gets the hue."""
    middle = cv2.cvtColor(np.uint8([[[hue, saturation, 160]]]), cv2.COLOR_HSV2RGB)[0, 0] / 255
    levels = to_gray(photo) / 255.0
    return np.rint(255 * levels ** (np.log(middle) / np.log(0.55))).astype(np.uint8)


def differing(pixels: np.ndarray) -> float:
    """What the release compares with 10."""
    return np.mean([(pixels[..., a].astype(int) - pixels[..., b]).var() for a, b in ((0, 1), (1, 2), (2, 0))])
