import numpy as np
import pytest

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


@pytest.mark.parametrize(("swing", "gray"), [(3, True), (4, False)])
def test_the_threshold_is_a_mean_variance_of_10(swing, gray):
    # R - G and B - R swing by ±s, G - B not at all: variances s², 0 and s².
    levels = np.full((10, 10), 100)
    red = levels + swing * np.where(np.arange(10) % 2, 1, -1)
    pixels = np.dstack([red, levels, levels]).astype(np.uint8)
    assert 2 * swing**2 / 3 <= 10 if gray else 2 * swing**2 / 3 > 10
    assert is_gray(pixels) == gray


def test_variances_of_a_large_photo_are_exact():
    rng = np.random.default_rng(1)
    pixels = (100 + rng.normal(0, 2.2, (1000, 1500, 3))).round().astype(np.uint8)
    differences = [pixels[..., a].astype(int) - pixels[..., b] for a, b in ((0, 1), (1, 2), (2, 0))]
    assert 9 < np.mean([d.var() for d in differences]) < 10
    assert is_gray(pixels)
