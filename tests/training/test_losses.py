"""What isn't compared with PyTorch elsewhere: the losses on colors, on fine detail and on structure; their weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from interlcm_jax.errors import InterLCMError
from interlcm_jax.training import losses
from interlcm_jax.training.losses import Judges, LossConfig, picture_losses


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


def test_texture_equals_a_plain_computation_and_leaves_odd_edges_out():
    first, second = (np.asarray(jax.random.normal(jax.random.key(i), (2, 21, 29, 3)), np.float64) for i in (0, 1))

    def detail(image: np.ndarray, row: int, column: int, direction: tuple[int, int]) -> np.ndarray:
        total, (down, across) = 0, direction
        for y in range(1 + 8 * row, 9 + 8 * row):
            for x in range(1 + 8 * column, 9 + 8 * column):
                before, after = image[:, y - down, x - across], image[:, y + down, x + across]
                total += (before - 2 * image[:, y, x] + after) ** 2
        return np.sqrt(total / 64)

    gaps = [
        np.abs(detail(first, row, column, direction) - detail(second, row, column, direction))
        for row in range(2)
        for column in range(3)
        for direction in ((0, 1), (1, 0), (1, 1), (1, -1))
    ]
    actual = losses.texture(jnp.asarray(first, jnp.float32), jnp.asarray(second, jnp.float32))
    assert float(actual) == pytest.approx(np.mean(gaps), rel=1e-5)


def test_texture_of_a_flat_image_has_finite_gradients():
    hq = jax.random.normal(jax.random.key(0), (1, 16, 16, 3))
    assert jnp.isfinite(jax.grad(losses.texture)(jnp.zeros_like(hq), hq)).all()


def test_structure_counts_as_what_scikit_image_misses():
    hq, noise = (np.asarray(jax.random.uniform(jax.random.key(i), (2, 24, 30, 3), minval=-1)) for i in (0, 1))
    restored = 0.7 * hq + 0.3 * noise
    options = {"channel_axis": -1, "data_range": 1.0, "gaussian_weights": True, "use_sample_covariance": False}
    similar = [structural_similarity((a + 1) / 2, (b + 1) / 2, **options) for a, b in zip(restored, hq, strict=True)]
    found = losses.structure(jnp.asarray(restored), jnp.asarray(hq))
    assert float(found) == pytest.approx(1 - np.mean(similar), rel=1e-4)


def test_structure_asks_for_as_much_contrast_as_there_was():
    """Of details that are known in part alone the mean square wants less than there were, structure as much."""
    hq, noise = (jax.random.normal(jax.random.key(i), (1, 64, 64, 3)) for i in (0, 1))
    known = 0.6 * hq + 0.8 * noise

    def contrast(loss):
        return min(np.arange(0.3, 1.5, 0.1), key=lambda gain: float(loss(gain * known)))

    assert contrast(lambda x: ((x - hq) ** 2).mean()) == pytest.approx(0.6)
    assert contrast(lambda x: losses.structure(x, hq)) == pytest.approx(1.0)


def test_losses_count_by_their_weights_and_those_without_are_not_computed():
    hq, restored = (jax.random.normal(jax.random.key(i), (1, 24, 24, 3)) for i in (0, 1))
    weights = LossConfig(l1=0.0, color=3.0, texture=0.5, lpips=0.0, adversarial=0.0)
    total, metrics = picture_losses(weights, Judges(), restored, hq)
    assert metrics.keys() == {"loss/color", "loss/texture"}
    assert float(metrics["loss/color"]) == pytest.approx(float(losses.color(restored, hq)), rel=1e-5)
    wanted = 3 * float(metrics["loss/color"]) + 0.5 * float(losses.texture(restored, hq))
    assert float(total) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"color": -0.5}, "color -0.5, .*none may be below 0"),
        ({"l1": 0.0, "lpips": 0.0, "adversarial": 0.0}, "l1 0.0, .*adversarial 0.0, but none may be below 0, nor all"),
        ({"adversarial_from": -1}, "adversarial_from is -1, but must be at least 0"),
    ],
)
def test_weights_that_make_no_loss_are_refused(weights, words):
    with pytest.raises(InterLCMError, match=words):
        LossConfig(**weights)


def test_the_divergence_is_that_of_normal_distributions():
    """Against its integral over a fine grid."""
    mean, deviation, wide = 0.7, 0.4, 2.5
    x = np.linspace(-12, 12, 200_001)
    p, q = (np.exp(-(((x - m) / s) ** 2) / 2) / s / (2 * np.pi) ** 0.5 for m, s in ((mean, deviation), (0, wide)))
    expected = np.trapezoid(p * np.log(np.maximum(p, 1e-300) / np.maximum(q, 1e-300)), x)
    shape = (1, 2, 2, 4)
    found = losses.divergence(jnp.full(shape, mean), jnp.full(shape, 2 * np.log(deviation)), wide)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_the_pseudo_huber_loss_is_squared_near_and_absolute_far():
    near = losses.pseudo_huber(jnp.full((1, 3), 1e-3), jnp.zeros((1, 3)), 0.1)
    far = losses.pseudo_huber(jnp.full((1, 3), 50.0), jnp.zeros((1, 3)), 0.1)
    assert float(near) == pytest.approx(1e-6 / 0.2, rel=1e-2)
    assert float(far) == pytest.approx(49.9, rel=1e-5)
