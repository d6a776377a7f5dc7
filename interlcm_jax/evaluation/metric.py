"""What a metric is, and the scores it gives of a set of images."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from interlcm_jax.evaluation.per_image import Measure


@dataclasses.dataclass(frozen=True)
class Metric:
    """One way of computing one of the field's metrics.

    Attributes:
        name: stands for just this way.
        title: what papers call it; shared by all the ways.
        better: which scores are better.
        how: every choice that was made.
        source: whose choices they are.
        measures: what it is made of.
        per_image: from the rows of its one measure to each image's score; the set's is their mean.
        of_set: instead: from the rows of all measures, and what `constant` names, to the set's score.
        constant: one of `weights.WEIGHTS` that `of_set` takes first, or None.
        least_images: the smallest set that has a score.
        least_score: images that score less don't enter the mean.
        unit: of the scores.
        digits: behind the point, in tables.
    """

    name: str
    title: str
    better: Literal["higher", "lower"]
    how: str
    source: str
    measures: tuple[Measure, ...]
    per_image: Callable[[np.ndarray], np.ndarray] | None = None
    of_set: Callable[..., float] | None = None
    constant: str | None = None
    least_images: int = 1
    least_score: float = -math.inf
    unit: str = ""
    digits: int = 4

    @property
    def needs_reference(self) -> bool:
        """Whether it compares each image with its original."""
        return any("hq" in measure.of for measure in self.measures)

    @property
    def weights(self) -> list[str]:
        """Everything of `weights.WEIGHTS` that it takes."""
        names = [*(measure.weights for measure in self.measures), self.constant]
        return [name for name in dict.fromkeys(names) if name is not None]


@dataclasses.dataclass(frozen=True)
class Score:
    """What a metric says of a set of images.

    Attributes:
        value: the set's score; None where there is none.
        why: why there is none, such as "no weights".
        images: each image's score, where the metric has such.
        count: the images that entered `value`.
        interval: the mean's 95 % bootstrap interval, where images have scores of their own.
    """

    value: float | None = None
    why: str = ""
    images: Mapping[str, float] = dataclasses.field(default_factory=dict)
    count: int = 0
    interval: tuple[float, float] | None = None


Rows = Mapping[Measure, Mapping[str, np.ndarray]]


def score(metric: Metric, rows: Rows, names: Sequence[str], constant: Any = None) -> Score:
    """The score of the images of these names, summed in float64 in an order that changes nothing.

    Args:
        metric: what is asked.
        rows: of each measure, each image's row; those too small for it have none.
        names: of the images.
        constant: what `metric.constant` names, loaded.
    """
    measured = [name for name in names if all(name in rows[measure] for measure in metric.measures)]
    if not measured:
        least = max(measure.least for measure in metric.measures)
        return Score(why=f"no image of {least} pixels a side" if names else "no images")
    if len(measured) < metric.least_images:
        return Score(why=f"fewer than {metric.least_images} images")
    arrays = [
        np.stack([np.asarray(rows[measure][name], np.float64) for name in measured]) for measure in metric.measures
    ]
    if metric.of_set is not None:
        given = [] if metric.constant is None else [constant]
        return Score(metric.of_set(*given, *arrays), count=len(measured))
    images = dict(zip(measured, map(float, metric.per_image(arrays[0])), strict=True))
    counted = [value for value in images.values() if value >= metric.least_score]
    if not counted:
        return Score(why=f"all below {metric.least_score} or not a number", images=images)
    return Score(mean(counted), images=images, count=len(counted))


def mean(values: Sequence[float]) -> float:
    """The mean, exactly rounded: infinite where one value is."""
    return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else float(np.sum(values))
