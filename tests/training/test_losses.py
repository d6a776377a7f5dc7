"""What isn't compared with PyTorch elsewhere: the losses on colors, on fine and finest detail and on structure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from interlcm_jax.training import losses
from interlcm_jax.training.config import LossConfig
from interlcm_jax.training.gradients import _pixel_losses


def test_color_is_of_means_and_blind_to_details_that_cancel():
    hq = jnp.zeros((2, 16, 24, 3))
    rows, columns = np.indices((16, 24))
    checks = jnp.asarray(1.0 - 2.0 * ((rows + columns) % 2), jnp.float32)[None, :, :, None]
    assert float(losses.color(hq + 0.5 * checks, hq)) == pytest.approx(0, abs=1e-7)
    green = hq.at[..., 1].add(0.3)
    assert float(losses.color(green + 0.5 * checks, hq)) == pytest.approx(0.1)


def test_color_equals_a_plain_computation_and_leaves_odd_edges_out():
    first, second = (np.asarray(jax.random.normal(jax.random.key(i), (2, 19, 25, 3))) for i in (0, 1))
    gaps = [
        abs((first - second)[b, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8, c].mean())
        for b in range(2)
        for y in range(2)
        for x in range(3)
        for c in range(3)
    ]
    assert float(losses.color(jnp.asarray(first), jnp.asarray(second))) == pytest.approx(np.mean(gaps), rel=1e-5)


def test_texture_is_of_the_amount_of_detail_whatever_its_phase():
    hq = jnp.broadcast_to(0.4 * jnp.asarray(np.indices((34, 34)).sum(0) % 2 - 0.5)[None, :, :, None], (1, 34, 34, 3))
    assert float(losses.texture(jnp.roll(hq, 1, axis=2) + 0.2, hq)) == pytest.approx(0, abs=1e-6)
    blurred = losses.texture(0.5 * hq, hq)
    # A checkerboard's second differences are four times its deviation along rows and columns, and none diagonally.
    assert float(blurred) == pytest.approx((0.4 + 0.4 + 0 + 0) / 4, rel=1e-3)
    assert float(losses.texture(hq, 0.5 * hq)) == pytest.approx(float(blurred))


def test_texture_tells_directions_apart():
    stripes = jnp.broadcast_to(jnp.asarray(np.indices((34, 34))[0] % 2, jnp.float32)[None, :, :, None], (1, 34, 34, 3))
    assert float(losses.texture(stripes.transpose(0, 2, 1, 3), stripes)) > 0.3


@pytest.mark.parametrize(
    ("loss", "taps"),
    [(losses.texture, (1, -2, 1)), (losses.finest, (0.25, -1, 1.5, -1, 0.25))],
    ids=["texture", "finest"],
)
def test_amounts_of_detail_equal_a_plain_computation_and_leave_odd_edges_out(loss, taps):
    first, second = (np.asarray(jax.random.normal(jax.random.key(i), (2, 21, 29, 3)), np.float64) for i in (0, 1))

    def detail(image: np.ndarray, row: int, column: int, direction: tuple[int, int]) -> np.ndarray:
        total, reach = 0, len(taps) // 2
        for y in range(reach + 8 * row, reach + 8 + 8 * row):
            for x in range(reach + 8 * column, reach + 8 + 8 * column):
                line = [image[:, y + s * direction[0], x + s * direction[1]] for s in range(-reach, reach + 1)]
                total += sum(tap * each for tap, each in zip(taps, line, strict=True)) ** 2
        return np.sqrt(total / 64)

    gaps = [
        np.abs(detail(first, row, column, direction) - detail(second, row, column, direction))
        for row in range(2)
        for column in range(3)
        for direction in ((0, 1), (1, 0), (1, 1), (1, -1))
    ]
    actual = loss(jnp.asarray(first, jnp.float32), jnp.asarray(second, jnp.float32))
    assert float(actual) == pytest.approx(np.mean(gaps), rel=1e-5)


def test_finest_weighs_stripes_two_pixels_wide_half_as_texture_does():
    """Second differences are four times the height of stripes a pixel wide, and twice that of stripes of two."""

    def stripes(width: int) -> jax.Array:
        row = np.where(np.arange(36) // width % 2, -0.4, 0.4)
        return jnp.broadcast_to(jnp.asarray(row, jnp.float32)[None, None, :, None], (1, 36, 36, 3))

    flat = jnp.zeros((1, 36, 36, 3))
    # Of the four directions three cross the stripes; the faint constant under the roots takes up to 3e-3 off.
    assert float(losses.texture(stripes(1), flat)) == pytest.approx(0.75 * 4 * 0.4, rel=4e-3)
    assert float(losses.finest(stripes(1), flat)) == pytest.approx(0.75 * 4 * 0.4, rel=4e-3)
    assert float(losses.texture(stripes(2), flat)) == pytest.approx(0.75 * 2 * 0.4, rel=4e-3)
    assert float(losses.finest(stripes(2), flat)) == pytest.approx(0.75 * 1 * 0.4, rel=4e-3)


@pytest.mark.parametrize("loss", [losses.texture, losses.finest])
def test_amounts_of_detail_of_a_flat_image_have_finite_gradients(loss):
    hq = jax.random.normal(jax.random.key(0), (1, 16, 16, 3))
    assert jnp.isfinite(jax.grad(loss)(jnp.zeros_like(hq), hq)).all()


def test_the_finest_detail_counts_by_its_weight():
    hq, restored = (jax.random.normal(jax.random.key(i), (1, 24, 24, 3)) for i in (0, 1))
    weights = LossConfig(l1=0.0, finest=3.0, lpips=0.0, adversarial=0.0)
    total, metrics = _pixel_losses(weights, None, None, restored, hq)
    assert float(metrics["loss/finest"]) == pytest.approx(float(losses.finest(restored, hq)), rel=1e-5)
    assert float(total) == pytest.approx(3 * float(metrics["loss/finest"]), rel=1e-5)


STRUCTURE = LossConfig(l1=0.0, ssim=0.5, lpips=0.0, adversarial=0.0)


def test_structure_counts_as_what_scikit_image_misses():
    hq, noise = (np.asarray(jax.random.uniform(jax.random.key(i), (2, 24, 30, 3), minval=-1)) for i in (0, 1))
    restored = 0.7 * hq + 0.3 * noise
    options = {"channel_axis": -1, "data_range": 1.0, "gaussian_weights": True, "use_sample_covariance": False}
    similar = [structural_similarity((a + 1) / 2, (b + 1) / 2, **options) for a, b in zip(restored, hq, strict=True)]
    total, metrics = _pixel_losses(STRUCTURE, None, None, jnp.asarray(restored), jnp.asarray(hq))
    assert float(metrics["loss/ssim"]) == pytest.approx(1 - np.mean(similar), rel=1e-4)
    assert float(total) == pytest.approx(0.5 * float(metrics["loss/ssim"]))


def test_structure_asks_for_as_much_contrast_as_there_was():
    """Of details that are known in part alone the mean square wants less than there were, structure as much."""
    hq, noise = (jax.random.normal(jax.random.key(i), (1, 64, 64, 3)) for i in (0, 1))
    known = 0.6 * hq + 0.8 * noise

    def contrast(loss):
        return min(np.arange(0.3, 1.5, 0.1), key=lambda gain: float(loss(gain * known)))

    assert contrast(lambda x: ((x - hq) ** 2).mean()) == pytest.approx(0.6)
    assert contrast(lambda x: _pixel_losses(STRUCTURE, None, None, x, hq)[0]) == pytest.approx(1.0)
