"""Degradation: equal to OpenCV's own calls, and drawn from the ranges it says."""

import dataclasses
import math

import cv2
import numpy as np
import pytest
from scipy import stats

from interlcm_jax.data.degradation import Blind, DegradationConfig, Draws, degrade, draw, gaussian_kernel
from interlcm_jax.data.randomness import rng_for
from interlcm_jax.errors import InterLCMError

RELEASE, HARSH = DegradationConfig.release(), DegradationConfig.harsh()
JITTERED = DegradationConfig(color_jitter_probability=1.0, gray_probability=0.5)


@pytest.fixture(scope="module")
def face():
    rng = np.random.default_rng(0)
    smooth = cv2.GaussianBlur(rng.uniform(0, 255, (96, 96, 3)).astype(np.float32), (0, 0), 3)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def draws_of(config, count):
    return [draw(config, rng_for(0, "degradation", index, 3)) for index in range(count)]


def by_opencv(hq, draws):
    """The recipe again, its blur by a covariance matrix."""
    blind, (height, width) = draws.blind, hq.shape[:2]
    image = hq.astype(np.float32) / np.float32(255)
    turn = np.array(
        [[np.cos(blind.rotation), -np.sin(blind.rotation)], [np.sin(blind.rotation), np.cos(blind.rotation)]]
    )
    covariance = turn @ np.diag([blind.sigma_x**2, blind.sigma_y**2]) @ turn.T
    y, x = np.mgrid[-20:21, -20:21]
    grid = np.stack([x, y], -1)
    kernel = np.exp(-0.5 * np.einsum("ijk,kl,ijl->ij", grid, np.linalg.inv(covariance), grid))
    ours = gaussian_kernel(41, blind.sigma_x, blind.sigma_y, blind.rotation)
    # In double precision both are the same to 1e-12; rounding to float32 may fall either way.
    np.testing.assert_allclose(ours, kernel / kernel.sum(), rtol=1e-6, atol=1e-9)
    blurred = cv2.filter2D(image, -1, ours)
    if blind.sigma_x == blind.sigma_y:
        line = np.exp(-0.5 * (np.arange(-20, 21) / blind.sigma_x) ** 2)
        line = np.float32(line / line.sum())
        separated = cv2.sepFilter2D(image, -1, line, line)
        np.testing.assert_allclose(separated, blurred, atol=2e-6)
        blurred = separated
    image = cv2.resize(blurred, (int(width // blind.scale), int(height // blind.scale)))
    noise = np.random.Generator(np.random.PCG64(blind.noise_seed)).standard_normal(image.shape, np.float32)
    image = np.clip(image + noise * np.float32(blind.noise_sigma / 255), 0, 1)
    flags = [int(cv2.IMWRITE_JPEG_QUALITY), blind.jpeg_quality]
    encoded = cv2.imencode(".jpg", np.round(image * 255).astype(np.uint8)[..., ::-1], flags)[1]
    image = np.ascontiguousarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1]).astype(np.float32) / 255
    image = cv2.resize(image, (width, height))
    if draws.color_shift:
        image = np.clip(image + np.float32(draws.color_shift) / np.float32(255), 0, 1)
    if draws.gray:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    return np.clip(np.round(image * 255), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("config", [RELEASE, dataclasses.replace(HARSH, downsampling=(4, 12)), JITTERED])
def test_it_equals_opencv_to_the_bit(face, config):
    for draws in draws_of(config, 20):
        np.testing.assert_array_equal(degrade(face, draws), by_opencv(face, draws))


def test_the_kernel_is_turned_counterclockwise_of_x_towards_y():
    flat = gaussian_kernel(41, 8.0, 0.5, 0.0)
    assert flat[20].sum() == pytest.approx(flat.max() * math.sqrt(2 * math.pi) * 8, rel=0.02)
    np.testing.assert_allclose(gaussian_kernel(41, 8.0, 0.5, math.pi / 2), flat.T, atol=1e-9)
    assert gaussian_kernel(41, 8.0, 0.5, math.pi / 4)[30, 30] > 100 * gaussian_kernel(41, 8.0, 0.5, math.pi / 4)[30, 10]


def test_drawn_numbers_are_uniform_over_the_ranges():
    for config in (RELEASE, HARSH):
        blinds = [draws.blind for draws in draws_of(config, 3000)]
        aniso = [blind for blind in blinds if blind.sigma_x != blind.sigma_y]
        # Five standard deviations of a fair coin.
        assert abs(len(aniso) - 1500) < 137
        assert {blind.rotation for blind in blinds} - {blind.rotation for blind in aniso} == {0.0}
        for values, (low, high) in [
            ([blind.sigma_x for blind in blinds], config.blur_sigma),
            ([blind.sigma_y for blind in aniso], config.blur_sigma),
            ([blind.rotation for blind in aniso], (-math.pi, math.pi)),
            ([blind.scale for blind in blinds], config.downsampling),
            ([blind.noise_sigma for blind in blinds], config.noise_sigma),
        ]:
            assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-4
        low, high = config.jpeg_quality
        counts = np.bincount([blind.jpeg_quality for blind in blinds])
        assert not counts[:low].any()
        assert len(counts) == high + 1
        assert stats.chisquare(counts[low:]).pvalue > 1e-4
        assert len({blind.noise_seed for blind in blinds}) == 3000


def test_the_releases_ranges():
    assert (RELEASE.blur_sigma, RELEASE.downsampling, RELEASE.noise_sigma) == ((0.1, 10), (1, 12), (0, 15))
    assert (RELEASE.jpeg_quality, RELEASE.kernel_size, RELEASE.isotropic_probability) == ((60, 99), 41, 0.5)
    assert (HARSH.blur_sigma, HARSH.downsampling, HARSH.noise_sigma) == ((1, 15), (4, 30), (0, 20))
    assert HARSH.jpeg_quality == (30, 80)


def test_options_are_off_by_default_and_as_likely_as_asked():
    assert all(draws.color_shift is None and not draws.gray for draws in draws_of(RELEASE, 50))
    draws = draws_of(DegradationConfig(color_jitter_probability=0.3, gray_probability=0.1), 3000)
    shifts = [d.color_shift for d in draws if d.color_shift]
    assert abs(len(shifts) - 900) < 126
    assert abs(sum(d.gray for d in draws) - 300) < 83
    assert stats.kstest(np.ravel(shifts), stats.uniform(-20, 40).cdf).pvalue > 1e-4


def test_mild_ones_get_one_share_of_all_but_jpeg():
    full, mild = ([draws.blind for draws in draws_of(DegradationConfig(mild_probability=p), 1000)] for p in (0.0, 1.0))
    # One after another from the same generator, the first are the same but for the share.
    first, less = full[0], mild[0]
    share = less.noise_sigma / first.noise_sigma
    assert 0 < share < 1
    assert math.isclose(less.sigma_x, share * first.sigma_x)
    assert math.isclose(less.sigma_y, share * first.sigma_y)
    assert math.isclose(less.scale - 1, share * (first.scale - 1))
    assert (less.jpeg_quality, less.noise_seed) == (first.jpeg_quality, first.noise_seed)
    assert abs(np.mean([blind.noise_sigma for blind in mild]) - 7.5 / 2) < 0.5
    some = draws_of(DegradationConfig(mild_probability=0.2, noise_sigma=(15.0, 15.0)), 3000)
    assert abs(sum(draws.blind.noise_sigma < 15 for draws in some) - 600) < 110


def test_no_share_at_all_leaves_a_face_as_jpeg_does(face):
    none = Blind(41, 1e-3, 1e-3, 0.0, scale=1.0, noise_sigma=0.0, noise_seed=5, jpeg_quality=100)
    assert np.abs(degrade(face, Draws(none)).astype(int) - face).mean() < 2


def test_noise_is_as_strong_as_its_sigma():
    flat = np.full((128, 128, 3), 128, np.uint8)
    quiet = Blind(41, 0.1, 0.1, 0.0, scale=1.0, noise_sigma=0.0, noise_seed=5, jpeg_quality=100)
    noisy = dataclasses.replace(quiet, noise_sigma=12.0)
    assert np.ptp(degrade(flat, Draws(quiet))) <= 1
    deviation = degrade(flat, Draws(noisy)).astype(float) - 128
    # JPEG keeps colors at half the resolution, so look at the luma.
    luma = deviation @ [0.299, 0.587, 0.114]
    assert luma.std() == pytest.approx(12 * math.sqrt(0.299**2 + 0.587**2 + 0.114**2), rel=0.05)
    other = dataclasses.replace(noisy, noise_seed=6)
    assert (degrade(flat, Draws(noisy)) != degrade(flat, Draws(other))).any()


def test_gray_is_the_gray_image_and_nothing_else(face):
    gray = degrade(face, draw(DegradationConfig.gray(), rng_for(0, "degradation", 0, 0)))
    assert (np.ptp(gray, axis=2) == 0).all()
    np.testing.assert_allclose(gray[..., 0], face @ [0.299, 0.587, 0.114], atol=0.51)


def test_a_tiny_image_survives_the_largest_downsampling(face):
    draws = Draws(Blind(41, 10.0, 10.0, 0.0, scale=30.0, noise_sigma=20.0, noise_seed=1, jpeg_quality=30))
    small = np.ascontiguousarray(face[:20, :24])
    assert degrade(small, draws).shape == small.shape


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "sepia"),
        ("kernel_size", 40),
        ("blur_sigma", (0.0, 1.0)),
        ("blur_sigma", (2.0, 1.0)),
        ("rotation", (-4.0, 0.0)),
        ("downsampling", (0.5, 2.0)),
        ("downsampling", (1.0, math.inf)),
        ("noise_sigma", (-1.0, 5.0)),
        ("noise_sigma", (0.0, math.nan)),
        ("jpeg_quality", (0, 50)),
        ("jpeg_quality", (50, 101)),
        ("isotropic_probability", 1.5),
        ("color_jitter_probability", -0.1),
        ("gray_probability", math.nan),
        ("mild_probability", 2.0),
        ("color_jitter", 256.0),
    ],
)
def test_errors_name_the_field(field, value):
    with pytest.raises(InterLCMError, match=rf"degradation\.{field} is "):
        DegradationConfig(**{field: value})
