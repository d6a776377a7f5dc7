"""What a benchmark measures: a Markdown table on the screen and JSON lines in a file, row by row as they come."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def add_output(parser: argparse.ArgumentParser) -> None:
    """Adds `-o FILE`, for `Report`."""
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the rows here too, as JSON lines")


class Report:
    """Rows that are shown, and written, as soon as they are known: a benchmark that is stopped keeps what it has.

    Args:
        columns: what is shown of a row, by name, with its format.
        file: where every row is written as a line of JSON; None is nowhere.

    Raises:
        SystemExit: the file exists.
    """

    def __init__(self, columns: Mapping[str, str], file: Path | None = None):
        self.columns, self.file = columns, file
        if file is not None and file.exists():
            raise SystemExit(f"{file} exists; move it away or name another file")
        self._show(name.replace("_", " ") for name in columns)
        self._show("---" for _ in columns)

    def add(self, row: Mapping[str, Any]) -> None:
        """Shows and writes a row; it may hold more than the columns, and lack some."""
        self._show(_cell(row.get(name), form) for name, form in self.columns.items())
        if self.file is not None:
            with self.file.open("a") as lines:
                lines.write(json.dumps(row) + "\n")

    def _show(self, cells: Any) -> None:
        print(f"| {' | '.join(cells)} |", flush=True)


def _cell(value: Any, form: str) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_cell(one, form)}" for name, one in sorted(value.items()))
    return "" if value is None else format(value, form)
