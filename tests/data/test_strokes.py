"""White strokes."""

import math

import numpy as np
import pytest
from scipy import stats

from interlcm_jax.data.degradation import DegradationConfig, degrade, draw
from interlcm_jax.data.randomness import rng_for
from interlcm_jax.data.strokes import Stroke, StrokeConfig, draw_strokes, paint
from interlcm_jax.errors import InterLCMError


def strokes_of(count):
    return [draw_strokes(StrokeConfig(), rng_for(1, "degradation", index, 0)) for index in range(count)]


def test_shapes_are_drawn_from_the_ranges():
    images = strokes_of(1500)
    strokes = [stroke for image in images for stroke in image]
    for numbers, (low, high) in [
        ([len(image) for image in images], (1, 3)),
        ([len(stroke.vertices) for stroke in strokes], (8, 27)),
    ]:
        counts = np.bincount(numbers)
        assert not counts[:low].any()
        assert len(counts) == high + 1
        assert stats.chisquare(counts[low:]).pvalue > 1e-4
    assert stats.kstest([stroke.width * 512 for stroke in strokes], stats.uniform(30, 40).cdf).pvalue > 1e-4
    vertices = np.concatenate([stroke.vertices for stroke in strokes])
    assert vertices.min() >= 0
    assert vertices.max() <= 1


def test_strokes_are_white_and_the_rest_is_untouched():
    image = np.random.default_rng(0).integers(0, 200, (96, 96, 3), np.uint8)
    draws = draw(DegradationConfig.brushed(), rng_for(0, "degradation", 2, 0))
    lq = degrade(image, draws)
    painted = (lq == 255).all(axis=2)
    assert 0.02 < painted.mean() < 0.9
    np.testing.assert_array_equal(lq[~painted], image[~painted])
    assert not (image == 255).any(), "the input is left as it was"


def test_ends_and_joints_are_round():
    black = np.zeros((128, 128, 3), np.uint8)
    stroke = Stroke(((0.5, 0.25), (0.5, 0.75), (0.75, 0.75)), width=32 / 128)
    painted = paint(black, [stroke])[..., 0] > 0
    y, x = np.mgrid[:128, :128]
    # Within 16 pixels of the line through the vertices, which is a round brush's mark.
    first = np.hypot(x - 64, y - y.clip(32, 96))
    second = np.hypot(x - x.clip(64, 96), y - 96)
    distance = np.minimum(first, second)
    assert painted[distance < 14].all()
    assert not painted[distance > 18].any()


def test_strokes_scale_with_the_image():
    strokes = strokes_of(1)[0]
    areas = [(paint(np.zeros((s, s, 3), np.uint8), strokes) > 0).mean() for s in (64, 512)]
    assert areas[0] == pytest.approx(areas[1], rel=0.15)


@pytest.mark.parametrize(("field", "value"), [("count", (0, 3)), ("vertices", (9, 8)), ("width", (math.nan, 70.0))])
def test_errors_name_the_field(field, value):
    with pytest.raises(InterLCMError, match=rf"strokes\.{field} is "):
        StrokeConfig(**{field: value})
