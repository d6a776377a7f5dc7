"""Numbers that papers and repositories publish, shown next to ours only if computed in the same way.

`published.json` holds them as they were printed, each table with its source. A column that was computed as one of
`catalog.METRICS` is says which; of others it says why not.
"""

import dataclasses
import functools
import json
from collections.abc import Collection, Mapping
from importlib import resources
from typing import Any


@dataclasses.dataclass(frozen=True)
class Published:
    """What is published on one test set under the same choices.

    Attributes:
        rows: by method, with the table's name where several have it: numbers by metric.
        count: images of the set.
        sources: the tables.
        notes: which columns aren't shown, and why.
    """

    rows: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    count: int = 0
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For scripts."""
        return {"rows": self.rows, "count": self.count, "sources": list(self.sources)}


@functools.cache
def tables() -> list[dict[str, Any]]:
    """The tables of `published.json`: id, test_set, count, source, columns and rows."""
    file = resources.files("interlcm_jax.evaluation").joinpath("published.json")
    return json.loads(file.read_text(encoding="utf-8"))["tables"]


def published(test_set: str | None, count: int, metrics: Collection[str]) -> Published:
    """The published numbers that compare with ours.

    Args:
        test_set: the published set that was scored, or None for another one: nothing compares with that.
        count: images that were scored; numbers of another count don't compare.
        metrics: names of the metrics that were asked for.
    """
    found = [table for table in tables() if table["test_set"] == test_set and test_set is not None]
    if not found:
        return Published()
    if any(table["count"] != count for table in found):
        whole = found[0]["count"]
        note = f"Published numbers of {test_set} are of {whole} images, and these are {count}: they aren't shown."
        return Published(notes=(note,))
    rows: dict[str, dict[str, float]] = {}
    sources, notes = [], []
    for table in found:
        shown = [i for i, column in enumerate(table["columns"]) if column["metric"] in metrics]
        for method, values in table["rows"].items():
            numbers = {table["columns"][i]["metric"]: values[i] for i in shown if values[i] is not None}
            if numbers:
                rows[method if method not in rows else f"{method} [{table['id']}]"] = numbers
        if shown:
            sources.append(f"{table['id']}: {table['source']}")
        hidden = [f"{column['title']} ({column['why']})" for column in table["columns"] if column["metric"] is None]
        if hidden:
            notes.append(f"Published in {table['id']}, but not comparable: {', '.join(hidden)}.")
    return Published(rows, count, tuple(sources), tuple(notes))
