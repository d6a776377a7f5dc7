"""How sure a mean over images is: percentile bootstrap (Efron 1979), the same draws for every method."""

from collections.abc import Mapping, Sequence

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95
_AT_ONCE = 2**22  # numbers drawn at a time


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the mean, by drawing as many images with replacement, over and over.

    The draws depend on the number of images alone. None where there are fewer than two, or some aren't finite.
    """
    array = np.asarray(values, np.float64)
    if array.size < 2 or not np.isfinite(array).all():
        return None
    rng = np.random.default_rng(0)
    rows = max(1, _AT_ONCE // array.size)
    counts = [min(rows, RESAMPLES - start) for start in range(0, RESAMPLES, rows)]
    means = np.concatenate([array[rng.integers(array.size, size=(n, array.size))].mean(axis=1) for n in counts])
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def difference(ours: Mapping[str, float], theirs: Mapping[str, float]) -> tuple[float, float, float] | None:
    """By how much one method's mean is above another's, and the interval of that, image by image.

    Args:
        ours: each image's score by name.
        theirs: the other method's; images that just one of them has don't count.

    Returns:
        Mean, lower and upper end; or None as in `interval`.
    """
    gaps = [ours[name] - theirs[name] for name in sorted(ours.keys() & theirs.keys())]
    ends = interval(gaps)
    return None if ends is None else (float(np.mean(gaps)), *ends)
