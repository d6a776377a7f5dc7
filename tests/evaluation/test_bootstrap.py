"""Bootstrap intervals: as wide as theory says, and the same every time."""

import numpy as np
import pytest

from interlcm_jax.evaluation.bootstrap import difference, interval


def test_bootstrap_intervals():
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = interval(values)
    # The normal approximation's width.
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert low < values.mean() < high
    assert interval(values) == (low, high)
    assert interval([1.0]) is None
    assert interval([1.0, np.inf]) is None
    ours = {str(i): value for i, value in enumerate(values)}
    theirs = {name: value - 0.3 for name, value in ours.items()}
    assert difference(ours, theirs | {"more": 1.0}) == pytest.approx((0.3, 0.3, 0.3))
