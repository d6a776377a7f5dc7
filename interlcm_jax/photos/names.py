"""What results are called: by their inputs alone, not by the order or number of these."""

import collections
import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

from interlcm_jax.files.paths import in_bucket


@dataclasses.dataclass
class _Name:
    """A result's name in the making.

    Attributes:
        inside: the input's path in the folder that was given, or its name where the file was.
        around: the names of the folders that this folder is in.
        folders: how many of these the name begins with.
        keeps_suffix: whether the input's suffix is part of it.
    """

    inside: Path
    around: tuple[str, ...]
    folders: int = 0
    keeps_suffix: bool = False

    def path(self, suffix: str) -> Path:
        """The result's path in the output folder."""
        last = self.inside.name if self.keeps_suffix else self.inside.stem
        return Path(*self.around[len(self.around) - self.folders :], self.inside.parent, f"{last}{suffix}")

    def lengthen(self, by_suffix: bool) -> None:
        """Takes up what tells it apart from others: its suffix, or one more folder."""
        if self.folders < len(self.around) and not (by_suffix and not self.keeps_suffix):
            self.folders += 1
        else:
            self.keeps_suffix = True


def name_results(inputs: Iterable[tuple[Path, Path]], suffix: str) -> dict[Path, Path]:
    """For each input file the path of its result in the output folder; no two are the same.

    A result is called as its input but for the suffix. Inputs whose results would share a name keep what tells them
    apart, all of them: their suffixes (a.jpg.png and a.webp.png), or the folders they are in (x/a.png and y/a.png).

    Args:
        inputs: files, and what of each one's path is kept in any case. One that comes twice counts once, with the
            longer path.
        suffix: the results'.
    """
    files: dict[str, Path] = {}
    names: dict[str, _Name] = {}
    for file, inside in inputs:
        whole = str(file) if in_bucket(file) else os.path.abspath(file)
        if whole not in names or len(inside.parts) > len(names[whole].inside.parts):
            # The drive's letter is a folder's name too.
            drive, *parts = file.parts if in_bucket(file) else Path(whole).parts
            around = (*filter(None, [drive.strip(":\\/")]), *parts[: len(parts) - len(inside.parts)])
            names[whole] = _Name(inside, around)
        files.setdefault(whole, file)
    while clashes := [alike for alike in _by_path(names.values(), suffix).values() if len(alike) > 1]:
        for alike in clashes:
            by_suffix = len({(name.around, name.inside.parent) for name in alike}) == 1
            for name in alike:
                name.lengthen(by_suffix)
    return {file: names[whole].path(suffix) for whole, file in files.items()}


def _by_path(names: Iterable[_Name], suffix: str) -> dict[Path, list[_Name]]:
    alike = collections.defaultdict(list)
    for name in names:
        alike[name.path(suffix)].append(name)
    return alike
