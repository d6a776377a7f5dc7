"""Methods compared: each is scored by the same metrics over the same images, and so are their inputs and originals."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, Self

from interlcm_jax.errors import InterLCMError
from interlcm_jax.evaluation.bootstrap import interval
from interlcm_jax.evaluation.folders import Measurements, measure_pairs, set_digest
from interlcm_jax.evaluation.metric import Metric, Score, score_set
from interlcm_jax.evaluation.pairs import Files, Pair, images_by_name, match
from interlcm_jax.evaluation.per_image import ImageMeasure, LoadedMeasure
from interlcm_jax.evaluation.weights import Library, NoWeightsError

Progress = Callable[[str, int], Callable[[], object]]


@dataclasses.dataclass(frozen=True)
class Subject:
    """What a row of the table is about.

    Attributes:
        name: shown in the table.
        role: "method": restored images; "lq": what they were made from; "hq": the originals, which only have scores
            that need no reference.
        files: by name.
        problems: what couldn't be taken.
    """

    name: str
    role: Literal["method", "lq", "hq"]
    files: Files
    problems: tuple[str, ...] = ()

    @classmethod
    def of_folder(cls, name: str, role: Literal["method", "lq", "hq"], folder: Path, ending: str = "") -> Self:
        """The images in a folder, see `pairs.images_by_name`."""
        files, problems = images_by_name(folder, ending)
        return cls(name, role, files, tuple(problems))


@dataclasses.dataclass(frozen=True)
class Row:
    """A subject's scores.

    Attributes:
        subject: what they are of.
        scores: by metric.
        names: the images used.
        failures: images that couldn't be scored: what was wrong, by name.
        problems: files without a partner, or that couldn't be taken.
        warnings: what is odd about images that were scored.
    """

    subject: Subject
    scores: dict[str, Score]
    names: list[str]
    failures: dict[str, str]
    problems: list[str]
    warnings: list[str]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Methods side by side.

    Attributes:
        rows: in the order of their subjects.
        reference_digest: the originals' hash, or None where there are none.
        notes: why weights are missing, one line each.
    """

    rows: list[Row]
    reference_digest: str | None
    notes: list[str]

    @property
    def methods(self) -> list[Row]:
        """The rows of restored images."""
        return [row for row in self.rows if row.subject.role == "method"]


def compare(
    subjects: Sequence[Subject],
    hq: Files | None,
    metrics: Sequence[Metric],
    library: Library,
    *,
    batch_size: int = 4,
    workers: int = 2,
    progress: Progress = lambda name, total: lambda: None,
) -> Comparison:
    """Scores all subjects: the methods over the images that all of them have, the others over the same ones.

    Args:
        subjects: at least one method.
        hq: the originals by name, or None.
        metrics: those to compute; one without weights has no number, and a note says why.
        library: the weights.
        batch_size: images at a time on each device.
        workers: threads that read files.
        progress: given what is being done and the number of images, returns what is called after each.

    Raises:
        InterLCMError: a method has no image with a partner, weights that were found or named don't fit, or the
            methods have no readable image in common.
    """
    measures, missing, notes = _load_measures(metrics, library)
    done: dict[str, tuple[Measurements, list[str]]] = {}
    wanted: set[str] = set()
    tried: set[str] = set()
    for subject in sorted(subjects, key=lambda subject: subject.role != "method"):
        if subject.role == "method":
            tried |= subject.files.keys()
            pairs, problems = match(subject.files, hq)
        else:
            pairs, problems = _pairs_like(subject, hq, wanted, tried)
        with_reference = hq is not None and subject.role != "hq"
        own = {one: parts for one, parts in measures.items() if with_reference or "hq" not in one.of}
        if subject.role == "hq" and not own:
            # They were read as references already.
            measurements = Measurements({}, [pair.name for pair in pairs])
        else:
            tick = progress(f"scoring {subject.name}", len(pairs))
            measurements = measure_pairs(pairs, own, batch_size=batch_size, workers=workers, progress=tick)
        done[subject.name] = measurements, [*subject.problems, *problems]
        if subject.role == "method":
            names = set(measurements.names)
            wanted = wanted & names if wanted else names
            if not wanted:
                failures = "; ".join(list(measurements.failures.values())[:5])
                raise InterLCMError(f"{subject.name}: no image that could be scored ({failures or 'none in common'})")
    rows = [
        _row(subject, *done[subject.name], wanted, metrics, missing, library, hq is not None) for subject in subjects
    ]
    digest = None
    if hq is not None:
        first = next(subject for subject in subjects if subject.role == "method")
        digest = set_digest(done[first.name][0].digests, sorted(wanted))
    return Comparison(rows, digest, notes)


def _pairs_like(subject: Subject, hq: Files | None, wanted: set[str], tried: set[str]) -> tuple[list[Pair], list[str]]:
    """The low- or high-quality images of those that the methods restored; which are missing, and which are extra."""
    names = subject.files.keys()
    problems = [f"{subject.name}: no image {name}" for name in sorted(wanted - names)]
    extra = names - tried - (hq or {}).keys()
    problems += [f"{subject.files[name]}: nothing restored of this name" for name in sorted(extra)]
    own = hq if hq is not None and subject.role == "lq" else {}
    return [Pair(name, subject.files[name], own.get(name)) for name in sorted(wanted & names)], problems


def _load_measures(
    metrics: Iterable[Metric], library: Library
) -> tuple[dict[ImageMeasure, LoadedMeasure], set[str], list[str]]:
    """The image measures with their weights, the names of the metrics that have none, and a note on each of these."""
    measures: dict[ImageMeasure, LoadedMeasure] = {}
    missing: set[str] = set()
    notes: list[str] = []
    for metric in metrics:
        try:
            for name in metric.weights:
                library.load(name)
        except NoWeightsError as error:
            missing.add(metric.name)
            notes.append(f"{metric.title}: no weights ({error})")
            continue
        for one in metric.measures:
            if one not in measures:
                measures[one] = one.load(None if one.weights is None else library.load(one.weights))
    return measures, missing, notes


def _row(
    subject: Subject,
    measurements: Measurements,
    problems: list[str],
    wanted: set[str],
    metrics: Sequence[Metric],
    missing: set[str],
    library: Library,
    with_reference: bool,
) -> Row:
    names = [name for name in measurements.names if name in wanted]
    scores = {}
    for metric in metrics:
        if metric.needs_reference and subject.role == "hq":
            scores[metric.name] = Score(why="is the reference")
        elif metric.needs_reference and not with_reference:
            scores[metric.name] = Score(why="needs a reference")
        elif metric.name in missing:
            scores[metric.name] = Score(why="no weights")
        else:
            constant = None if metric.constant is None else library.load(metric.constant)
            scores[metric.name] = _with_interval(metric, score_set(metric, measurements.rows, names, constant))
    return Row(subject, scores, names, measurements.failures, problems, measurements.warnings)


def _with_interval(metric: Metric, found: Score) -> Score:
    return dataclasses.replace(found, interval=interval(list(counted(metric, found).values())))


def counted(metric: Metric, found: Score) -> dict[str, float]:
    """The images' scores that enter a set's score."""
    return {name: value for name, value in found.images.items() if value >= metric.least_score}


def to_number(value: float | None) -> float | None:
    """A number as JSON and spreadsheets have it: infinity and NaN are none."""
    return value if value is not None and math.isfinite(value) else None
