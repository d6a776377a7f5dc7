"""The metrics: each under a name that stands for one way of computing it, and the scores of a set of images.

Another metric is one more entry here, over a measure in `measures.py` and, if it has a network, weights in
`weights.py`; protocols (`protocols.py`) then name it.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from interlcm_jax.evaluation import measures
from interlcm_jax.evaluation.measures import Measure
from interlcm_jax.metrics.image import decibels


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


def _same(rows: np.ndarray) -> np.ndarray:
    return rows


_BASICSR = "BasicSR, basicsr/metrics/psnr_ssim.py"
_WINDOW = "Gaussian window of 11 pixels, sigma 1.5, whole windows only, population covariance"
_VQFR = "VQFR, metric_paper/calculate_psnr_ssim.py (correct_mean_var is on by default)"
_MATCHED = "each colour channel of the restored image first shifted and scaled to the reference's mean and deviation"
_DAEFR = "RestoreFormer++ and DAEFR, scripts/metrics/cal_psnr_ssim.py"

_ALL = (
    Metric(
        "psnr",
        "PSNR",
        "higher",
        "one error over R, G and B in 8 bits, no border cropped; the mean of the images' decibels",
        _BASICSR,
        (measures.ERROR,),
        decibels,
        unit="dB",
        digits=2,
    ),
    Metric(
        "psnr-y",
        "PSNR",
        "higher",
        "of BT.601's luma on its studio range, not rounded, no border cropped",
        f"{_BASICSR} (test_y_channel)",
        (measures.ERROR_Y,),
        decibels,
        unit="dB",
        digits=2,
    ),
    Metric(
        "psnr-matched",
        "PSNR",
        "higher",
        f"{_MATCHED}, which lifts it; then over R, G and B, not rounded or clipped, no border cropped",
        _VQFR,
        (measures.ERROR_MATCHED,),
        decibels,
        unit="dB",
        digits=2,
    ),
    Metric(
        "ssim",
        "SSIM",
        "higher",
        f"mean over R, G and B in 8 bits, no border cropped; {_WINDOW}",
        _BASICSR,
        (measures.SSIM,),
        _same,
    ),
    Metric(
        "ssim-y",
        "SSIM",
        "higher",
        f"of BT.601's luma on its studio range, not rounded; {_WINDOW}",
        f"{_BASICSR} (test_y_channel)",
        (measures.SSIM_Y,),
        _same,
    ),
    Metric(
        "ssim-matched",
        "SSIM",
        "higher",
        f"{_MATCHED}; then over R, G and B; {_WINDOW}",
        _VQFR,
        (measures.SSIM_MATCHED,),
        _same,
    ),
    Metric(
        "ssim-pyiqa",
        "SSIM",
        "higher",
        f"of YIQ's luma in whole levels, opposed structures count 0; {_WINDOW}",
        "pyiqa's `ssim` (its `ssimc` is the one over colours)",
        (measures.SSIM_PYIQA,),
        _same,
    ),
    Metric(
        "lpips",
        "LPIPS",
        "lower",
        "VGG16, version 0.1; RGB in [-1, 1]",
        "VQFR, metric_paper/calculate_lpips.py; pyiqa's `lpips-vgg` (its `lpips` is AlexNet's)",
        (measures.LPIPS,),
        _same,
    ),
    Metric(
        "lpips-bgr",
        "LPIPS",
        "lower",
        "VGG16, version 0.1; channels in the order B, G, R, in [-1, 1]",
        f"{_DAEFR}: the second of the two values it prints",
        (measures.LPIPS_BGR,),
        _same,
    ),
)
METRICS = {metric.name: metric for metric in _ALL}
