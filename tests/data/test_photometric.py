import dataclasses
import math

import numpy as np
import pytest

from interlcm_jax.data.photometric import PhotometricConfig, Tones, change_tones, draw_tones
from interlcm_jax.errors import InterLCMError

SAME = Tones(gray=False, gamma=1.0, contrast=1.0, shade=0.0, towards=0.0, tint=(0.0, 0.0, 0.0))


def image():
    return np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)


def test_no_change_is_no_change():
    np.testing.assert_array_equal(change_tones(image(), SAME), image())
    assert draw_tones(PhotometricConfig(), np.random.default_rng(0)) is None


def test_draws_keep_to_their_ranges_reach_them_and_are_as_likely_as_asked():
    config = PhotometricConfig(probability=0.5, gray=0.25, gamma=1.0, contrast=0.5, shade=0.8, tint=51.0)
    rng = np.random.default_rng(0)
    draws = [tones for tones in (draw_tones(config, rng) for _ in range(4000)) if tones is not None]
    assert abs(len(draws) - 2000) < 130
    assert abs(sum(tones.gray for tones in draws) - 500) < 80
    for values, low, high in (
        (np.log2([tones.gamma for tones in draws]), -1, 1),
        (np.log2([tones.contrast for tones in draws]), -0.5, 0.5),
        (np.array([tones.shade for tones in draws]), 0, 0.8),
        (np.array([tones.towards for tones in draws]), -math.pi, math.pi),
        (np.array([tones.tint for tones in draws]).ravel(), -0.2, 0.2),
    ):
        margin = 0.01 * (high - low)
        assert low <= values.min() < low + margin
        assert high - margin < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 5 * margin


def test_each_number_does_what_it_says():
    def changed(**numbers):
        return change_tones(image(), dataclasses.replace(SAME, **numbers)).astype(float)

    values = image() / 255
    assert np.abs(changed(gamma=2.0) / 255 - values**2).max() < 0.003
    assert np.abs(changed(contrast=0.5) / 255 - (0.25 + values / 2)).max() < 0.003
    assert np.abs(changed(tint=(0.1, 0.0, -0.1)) / 255 - (values + np.array([0.1, 0, -0.1])).clip(0, 1)).max() < 0.003
    gray = changed(gray=True)
    assert np.abs(gray - (image() @ [0.299, 0.587, 0.114])[..., None]).max() < 0.6


def test_the_far_side_lacks_the_share_of_light():
    white = np.full((33, 33, 3), 255, np.uint8)
    lit = change_tones(white, dataclasses.replace(SAME, shade=0.8)) / 255
    assert lit[16, -1].mean() > 0.99
    assert abs(lit[16, 0].mean() - 0.2) < 0.01
    assert abs(lit[16, 16].mean() - 0.6) < 0.01
    from_below = change_tones(white, dataclasses.replace(SAME, shade=0.8, towards=math.pi / 2)) / 255
    np.testing.assert_allclose(from_below, lit.transpose(1, 0, 2), atol=0.01)


@pytest.mark.parametrize(
    ("field", "value"),
    [("probability", 1.1), ("gray", -0.1), ("gamma", 5.0), ("contrast", math.nan), ("shade", 1.5), ("tint", 256.0)],
)
def test_errors_name_the_field(field, value):
    with pytest.raises(InterLCMError, match=rf"data\.photometric\.{field} is "):
        PhotometricConfig(**{field: value})
