"""The ways of computing a metric, against the formulas of those whose choices they are."""

import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from interlcm_jax.evaluation.catalog import METRICS
from interlcm_jax.evaluation.metric import score_set
from tests.evaluation.pictures import picture, spoilt

WINDOW = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}


def one(name: str, restored: np.ndarray, hq: np.ndarray) -> float:
    """A metric of one pair."""
    metric = METRICS[name]
    measure = metric.measures[0]
    loaded = measure.load(None)
    images = (jnp.asarray(image[None]) for image in (restored, hq))
    rows = loaded.on_host(loaded.on_device(loaded.params, *images))
    return score_set(metric, {measure: {"x": rows[0]}}, ["x"]).value


def matched(restored: np.ndarray, hq: np.ndarray) -> np.ndarray:
    """As VQFR's script does it: mean and deviation, twice, in levels of 255."""
    x, y = restored.astype(np.float64), hq.astype(np.float64)
    for _ in range(2):
        x = x - x.mean(axis=(0, 1)) + y.mean(axis=(0, 1))
        x = x / x.std(axis=(0, 1)) * y.std(axis=(0, 1))
    return x


def test_matching_colors_first_is_vqfrs():
    hq = picture(0, 40)
    restored = spoilt((hq * 0.8 + 30).astype(np.uint8), 6)
    x = matched(restored, hq)
    wanted = 10 * np.log10(255**2 / np.mean((x - hq) ** 2))
    assert one("psnr-matched", restored, hq) == pytest.approx(wanted, abs=2e-5)
    assert wanted > one("psnr", restored, hq) + 3
    wanted = structural_similarity(hq.astype(np.float64), x, channel_axis=-1, **WINDOW)
    assert one("ssim-matched", restored, hq) == pytest.approx(wanted, abs=1e-6)


def test_a_flat_image_can_be_matched():
    hq = picture(0, 40)
    flat = np.full_like(hq, 100)
    wanted = 10 * np.log10(255**2 / np.mean((hq - hq.mean(axis=(0, 1))) ** 2))
    assert one("psnr-matched", flat, hq) == pytest.approx(wanted, abs=1e-5)


def test_pyiqas_ssim_is_of_rounded_luma_and_never_below_zero():
    hq = picture(1, 40)
    restored = spoilt(hq, 20)
    luma = [np.rint(x @ np.array([0.299, 0.587, 0.114])) for x in (hq, restored)]
    # Where no structure is opposed, clipping changes nothing.
    assert one("ssim-pyiqa", restored, hq) == pytest.approx(structural_similarity(*luma, **WINDOW), abs=1e-4)
    assert one("ssim-pyiqa", 255 - hq, hq) == pytest.approx(0, abs=1e-2)
    assert one("ssim-y", 255 - hq, hq) < -0.1


def test_equal_images():
    hq = picture(2, 40)
    assert one("psnr", hq, hq) == np.inf
    assert one("ssim", hq, hq) == 1


def test_the_distance_of_features_grows_with_the_damage():
    hq = picture(3, 64)
    assert one("onet", hq, hq) == 0
    assert 0 < one("onet", spoilt(hq, 4), hq) < one("onet", spoilt(hq, 40), hq)


def test_sharpness_is_of_the_restored_image_alone():
    metric = METRICS["sharpness"]
    assert not metric.needs_reference
    assert metric.measures[0].of == ("restored",)
