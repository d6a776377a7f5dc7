import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from interlcm_jax.errors import InterLCMError
from interlcm_jax.metrics.image import decibels, mean_squared_error, psnr, ssim

SETTINGS = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "K1": 0.01, "K2": 0.03}


def pairs(size: tuple[int, int] = (97, 150)) -> tuple[np.ndarray, np.ndarray]:
    """Originals and restorations from good to bad: noise, even areas of several brightnesses, a cast, another image."""
    rng = np.random.default_rng(0)
    rows, columns = np.meshgrid(*(np.linspace(0, 1, n) for n in size), indexing="ij")
    wave = 127 + 90 * np.sin(9 * rows[..., None] + 7 * columns[..., None] + np.arange(3))
    even = np.full((*size, 3), 250.0)
    even[: size[0] // 2] = 3
    hq = np.stack([wave, wave, even, even, rng.integers(0, 256, wave.shape)])
    moved = [rng.normal(0, 8, wave.shape), 20, rng.normal(0, 0.6, wave.shape), 2, rng.normal(0, 90, wave.shape)]
    restored = np.stack([image + change for image, change in zip(hq, moved, strict=True)])
    return tuple(np.clip(np.rint(x), 0, 255).astype(np.uint8) for x in (restored, hq))


def as_floats(images: np.ndarray) -> np.ndarray:
    """Floats in [-1, 1] that are no levels of uint8."""
    noise = np.random.default_rng(1).uniform(-1e-3, 1e-3, images.shape)
    return np.clip(images / 127.5 - 1 + noise, -1, 1).astype(np.float32)


def reference(metric, restored: np.ndarray, hq: np.ndarray, channel: str) -> np.ndarray:
    """scikit-image's number of each pair, in float64 with data range 1."""
    scale = (lambda x: x / 255) if restored.dtype == np.uint8 else (lambda x: (x.astype(np.float64) + 1) / 2)
    x, y = scale(restored), scale(hq)
    if channel == "y":
        x, y = (rgb2ycbcr(image)[..., :1] / 255 for image in (x, y))
    return np.array([metric(b, a) for a, b in zip(x, y, strict=True)])


def skimage_psnr(hq: np.ndarray, restored: np.ndarray) -> float:
    return peak_signal_noise_ratio(hq, restored, data_range=1)


def skimage_ssim(hq: np.ndarray, restored: np.ndarray) -> float:
    return structural_similarity(hq, restored, data_range=1, channel_axis=-1, **SETTINGS)


@pytest.mark.parametrize("channel", ["rgb", "y"])
@pytest.mark.parametrize("convert", [np.asarray, as_floats], ids=["uint8", "float"])
def test_psnr_is_that_of_scikit_image(convert, channel):
    restored, hq = (convert(x) for x in pairs())
    wanted = reference(skimage_psnr, restored, hq, channel)
    np.testing.assert_allclose(decibels(mean_squared_error(restored, hq, channel)), wanted, rtol=0, atol=1e-6)
    # Float32's own steps are this wide.
    np.testing.assert_allclose(psnr(restored, hq, channel), wanted, rtol=2e-7, atol=2e-6)


@pytest.mark.parametrize("channel", ["rgb", "y"])
@pytest.mark.parametrize("convert", [np.asarray, as_floats], ids=["uint8", "float"])
def test_ssim_is_that_of_scikit_image(convert, channel):
    restored, hq = (convert(x) for x in pairs())
    wanted = reference(skimage_ssim, restored, hq, channel)
    np.testing.assert_allclose(ssim(restored, hq, channel), wanted, rtol=0, atol=1e-6)
    assert np.ptp(wanted) > 0.3


def test_metrics_of_uint8_are_scikit_images_own_on_uint8():
    restored, hq = (x[:1] for x in pairs())
    wanted = structural_similarity(hq[0], restored[0], data_range=255, channel_axis=-1, **SETTINGS)
    np.testing.assert_allclose(ssim(restored, hq), [wanted], rtol=0, atol=1e-6)
    wanted = peak_signal_noise_ratio(hq[0], restored[0], data_range=255)
    np.testing.assert_allclose(decibels(mean_squared_error(restored, hq)), [wanted], rtol=0, atol=1e-6)


def test_nothing_is_lost_at_the_models_size():
    restored, hq = (as_floats(x[:3]) for x in pairs((512, 512)))
    wanted = reference(skimage_ssim, restored, hq, "rgb")
    np.testing.assert_allclose(ssim(restored, hq), wanted, rtol=0, atol=1e-6)
    wanted = reference(skimage_psnr, restored, hq, "rgb")
    np.testing.assert_allclose(decibels(mean_squared_error(restored, hq)), wanted, rtol=0, atol=1e-6)


def test_equal_images_are_infinitely_good():
    hq = jnp.asarray(pairs()[1])
    assert np.all(np.isposinf(psnr(hq, hq)))
    assert np.all(np.isposinf(decibels(mean_squared_error(hq, hq))))
    np.testing.assert_array_equal(ssim(hq, hq), 1)


def test_opposed_structures_count_nothing_where_ssim_is_clipped():
    hq = pairs((40, 40))[1][-1:]
    assert ssim(255 - hq, hq) < -0.5
    np.testing.assert_allclose(ssim(255 - hq, hq, clip=True), 0, atol=1e-3)
    np.testing.assert_allclose(ssim(hq, hq, clip=True), 1)


def test_an_image_scores_the_same_in_any_batch_and_inside_a_program():
    restored, hq = pairs((20, 30))
    both = jax.jit(lambda a, b: (mean_squared_error(a, b), ssim(a, b)))(restored, hq)
    for metric, together in zip((mean_squared_error, ssim), both, strict=True):
        alone = [metric(restored[i : i + 1], hq[i : i + 1])[0] for i in range(len(hq))]
        np.testing.assert_allclose(together, alone, rtol=3e-7, atol=1e-7)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("metric", [psnr, ssim])
def test_what_cannot_be_compared_is_refused(metric):
    x = np.zeros((1, 16, 16, 3), np.uint8)
    for restored, hq in [
        (x, x[:, :, :12]),
        (x, x.astype(np.float32)),
        (x.astype(np.int32), x),
        (x[..., :1], x[..., :1]),
    ]:
        with pytest.raises(InterLCMError, match="both uint8 or both floats"):
            metric(restored, hq)
    with pytest.raises(InterLCMError, match="channel 'cb' doesn't exist"):
        metric(x, x, "cb")


def test_an_image_smaller_than_the_window_has_no_ssim():
    x = np.zeros((1, 10, 16, 3), np.uint8)
    with pytest.raises(InterLCMError, match="11 pixels wide"):
        ssim(x, x)
