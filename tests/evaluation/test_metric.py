"""A set's score: an exact mean of the images that count."""

import numpy as np
import pytest

from interlcm_jax.evaluation import per_image
from interlcm_jax.evaluation.metric import Metric, mean, score_set


def test_the_mean_is_exact_and_takes_infinity():
    assert mean([1e16, 1.0, -1e16]) == pytest.approx(1 / 3)
    assert mean([1.0, np.inf]) == np.inf
    assert np.isnan(mean([1.0, np.nan]))


def test_scores_below_the_least_do_not_enter():
    measure = per_image.ImageMeasure(("restored",), per_image.without_weights(lambda x: x))
    metric = Metric("angle", "Angle", "lower", "", "", (measure,), lambda rows: rows, least_score=1.0)
    found = score_set(metric, {measure: {"a": 0.5, "b": 2.0, "c": 4.0}}, ["a", "b", "c"])
    assert (found.value, found.count) == (3.0, 2)
    assert found.images["a"] == 0.5
    assert score_set(metric, {measure: {"a": 0.5}}, ["a"]).value is None
