"""What a metric is, and its score of a set of images.

The words of this folder: an image measure (`per_image`) gives numbers of one image, on the devices; a metric makes
scores of them on the host, of each image and of the set; the catalog lists the metrics; a protocol names those that
belong together.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from interlcm_jax.evaluation.per_image import ImageMeasure


@dataclasses.dataclass(frozen=True)
class Metric:
    """One way of computing one of the field's metrics.

    Attributes:
        name: names this one way.
        title: what papers call it; several ways share it.
        better: which scores are better.
        how: every choice in its computation.
        source: the code or paper that made these choices.
        measures: the image measures it is made of.
        image_scores: from the rows of its one measure to each image's score; the set's is their mean.
        set_score: instead: from the rows of all measures, and what `constant` names, to the set's score.
        constant: one of `weights.WEIGHTS` that `set_score` takes first, or None.
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
    measures: tuple[ImageMeasure, ...]
    image_scores: Callable[[np.ndarray], np.ndarray] | None = None
    set_score: Callable[..., float] | None = None
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


Rows = Mapping[ImageMeasure, Mapping[str, np.ndarray]]


def score_set(metric: Metric, rows: Rows, names: Sequence[str], constant: Any = None) -> Score:
    """A metric's score of a set of images, summed exactly, in any order.

    Args:
        metric: the metric.
        rows: of each image measure, the images' rows by name; images too small for it have none.
        names: of the images in the set.
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
    if metric.set_score is not None:
        given = [] if metric.constant is None else [constant]
        return Score(metric.set_score(*given, *arrays), count=len(measured))
    images = dict(zip(measured, map(float, metric.image_scores(arrays[0])), strict=True))
    counted = [value for value in images.values() if value >= metric.least_score]
    if not counted:
        return Score(why=f"all below {metric.least_score} or not a number", images=images)
    return Score(mean(counted), images=images, count=len(counted))


def mean(values: Sequence[float]) -> float:
    """The mean, exactly rounded: infinite where one value is."""
    return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else float(np.sum(values))
