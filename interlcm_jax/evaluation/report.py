"""What an evaluation says: a table for the screen, JSON for scripts, a CSV line for each image."""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interlcm_jax import __version__
from interlcm_jax.errors import InterLCMError
from interlcm_jax.evaluation.bootstrap import difference
from interlcm_jax.evaluation.compare import Comparison, Row, counted, to_number
from interlcm_jax.evaluation.metric import Metric, Score
from interlcm_jax.evaluation.protocols import Protocol
from interlcm_jax.evaluation.published import Published
from interlcm_jax.files.atomic import whole_file

JSON, CSV, PAGE = "scores.json", "scores.csv", "report.html"
ARROWS = {"higher": "↑", "lower": "↓"}


@dataclasses.dataclass(frozen=True)
class Report:
    """An evaluation with everything that its numbers depend on.

    Attributes:
        protocol: fixed every choice.
        metrics: those that were asked for, in the order of tables.
        comparison: the rows.
        reference: the folder of the originals, or None.
        test_set: the name of the published set, or None.
        published: its published numbers, those under the same choices.
        restoration: how the images were restored, where this evaluation did it.
        notes: more for the reader.
    """

    protocol: Protocol
    metrics: Sequence[Metric]
    comparison: Comparison
    reference: str | None = None
    test_set: str | None = None
    published: Published = dataclasses.field(default_factory=Published)
    restoration: Mapping[str, Any] | None = None
    notes: Sequence[str] = ()

    @property
    def failed(self) -> list[str]:
        """Everything that couldn't be used, one line each, once."""
        rows = self.comparison.rows
        lines = [line for row in rows for line in (*row.problems, *row.failures.values())]
        return list(dict.fromkeys(lines))

    @property
    def warnings(self) -> list[str]:
        """What is odd about images that were used, once each."""
        return list(dict.fromkeys(line for row in self.comparison.rows for line in row.warnings))

    @property
    def heading(self) -> list[str]:
        """What the numbers are of, in a few lines."""
        count = len(self.comparison.methods[0].names)
        lines = [f"protocol {self.protocol.name}: {self.protocol.about}"]
        lines.append(f"{count} images" + (f" of {self.test_set}" if self.test_set else ""))
        if self.comparison.reference_digest:
            lines.append(f"reference {self.reference}, sha256 {self.comparison.reference_digest} (names and pixels)")
        return lines

    def __str__(self) -> str:
        lines = [*self.heading, "", *self._table()]
        rows = self.comparison.rows
        reasons = {score.why for row in rows for score in row.scores.values()} - {"", "is the reference"}
        if reasons - {"no weights"}:
            lines += ["", *sorted(f"-: {reason}" for reason in reasons - {"no weights"})]
        notes = [*self.comparison.notes, *self.published.notes, *self.notes]
        return "\n".join([*lines, *(["", *notes] if notes else [])])

    def _table(self) -> list[str]:
        head = ["", "images", *(f"{metric.title} {ARROWS[metric.better]}" for metric in self.metrics)]
        table = [head]
        for row in self.comparison.rows:
            cells = [cell(metric, row.scores[metric.name]) for metric in self.metrics]
            table.append([row.subject.name, str(len(row.names)), *cells])
        for name, values in self.published.rows.items():
            cells = ["" if metric.name not in values else str(values[metric.name]) for metric in self.metrics]
            table.append([f"{name} (published)", str(self.published.count), *cells])
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        return ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in table]

    def to_json(self) -> dict[str, Any]:
        """All numbers for scripts; where one isn't finite, it is None and a note says what it is."""
        return {
            "format": 2,
            "version": __version__,
            "protocol": {"name": self.protocol.name, "about": self.protocol.about},
            "metrics": {
                metric.name: {name: getattr(metric, name) for name in ("title", "better", "unit", "how", "source")}
                for metric in self.metrics
            },
            "count": len(self.comparison.methods[0].names),
            "test_set": self.test_set,
            "reference": {"folder": self.reference, "sha256": self.comparison.reference_digest},
            "restoration": self.restoration,
            "rows": [_row_json(row) for row in self.comparison.rows],
            "differences": differences(self.metrics, self.comparison),
            "published": self.published.to_json(),
            "notes": [*self.comparison.notes, *self.published.notes, *self.notes],
        }

    def to_csv(self) -> str:
        """A line for each image of each row; images that couldn't be used are there with their problem.

        Scores that aren't finite are named with the problems. Text that a spreadsheet would take for a formula starts
        with an apostrophe.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        metrics = [metric for metric in self.metrics if metric.image_scores]
        writer.writerow(["row", "image", *(metric.name for metric in metrics), "problem"])
        for row in self.comparison.rows:
            for name in sorted({*row.names, *row.failures}):
                values = [to_number(row.scores[metric.name].images.get(name)) for metric in metrics]
                problems = [row.failures[name]] if name in row.failures else _not_finite(row, name)
                texts = [_cell_text(text) for text in (row.subject.name, name, "; ".join(problems))]
                writer.writerow([*texts[:2], *values, texts[2]])
        return text.getvalue()

    def write(self, folder: Path, page: str) -> None:
        """Writes JSON, CSV and the page; each file appears whole or not at all.

        Raises:
            InterLCMError: the folder takes no files.
        """
        texts = {JSON: json.dumps(self.to_json(), indent=2) + "\n", CSV: self.to_csv(), PAGE: page}
        for name, text in texts.items():
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with whole_file(folder / name) as temporary:
                    # Names of files may hold what isn't text.
                    temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
            except OSError as error:
                raise InterLCMError(f"{folder / name}: can't be written ({error.strerror})") from error


def cell(metric: Metric, score: Score) -> str:
    """A score as tables show it."""
    if score.value is not None:
        return f"{score.value:.{metric.digits}f}"
    return score.why if score.why == "no weights" else "-"


def differences(metrics: Sequence[Metric], comparison: Comparison) -> dict[str, dict[str, dict[str, float]]]:
    """Of each method to the first one, by metric: the mean of the images' differences, and its 95 % interval."""
    first, *others = comparison.methods
    found: dict[str, dict[str, dict[str, float]]] = {}
    for metric in metrics if others else ():
        values = [counted(metric, row.scores[metric.name]) for row in (first, *others)]
        ends = {row.subject.name: difference(own, values[0]) for row, own in zip(others, values[1:], strict=True)}
        if known := {name: dict(zip(("mean", "low", "high"), e, strict=True)) for name, e in ends.items() if e}:
            found[metric.name] = known
    return found


def _row_json(row: Row) -> dict[str, Any]:
    return {
        "name": row.subject.name,
        "role": row.subject.role,
        "count": len(row.names),
        "scores": {name: _score_json(score) for name, score in row.scores.items()},
        "images": {
            name: {metric: to_number(s.images[name]) for metric, s in row.scores.items() if name in s.images}
            for name in row.names
        },
        "failed": row.failures,
        "problems": row.problems,
        "warnings": row.warnings,
        "notes": [f"{name}: {note}" for name in row.names for note in _not_finite(row, name)],
    }


def _not_finite(row: Row, name: str) -> list[str]:
    """Which scores of an image are infinite or NaN."""
    values = {metric: score.images.get(name, 0.0) for metric, score in row.scores.items()}
    return [f"{metric} is {value}" for metric, value in values.items() if not math.isfinite(value)]


def _cell_text(text: str) -> str:
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _score_json(score: Score) -> dict[str, Any]:
    if score.value is None:
        return {"value": None, "why": score.why}
    if not math.isfinite(score.value):
        return {"value": None, "why": f"it is {score.value}", "count": score.count}
    return {"value": score.value, "count": score.count, "interval": score.interval}
