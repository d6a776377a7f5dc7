"""Which files of a folder are images: one answer for restoring, training and evaluating."""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from interlcm_jax.errors import InterLCMError, printable
from interlcm_jax.files.paths import in_bucket, to_path

_log = logging.getLogger(__name__)

# What files of the formats that `imaging.opening` opens are called.
READABLE = (
    *(".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".hif", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc"),
    *(".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff"),
    *(".webp",),
)
# Files that are passed over are named up to this number.
_NAMED = 5


class Found(NamedTuple):
    """What is in a folder and its inner folders.

    Attributes:
        images: files with an image's suffix, in order of their names in the folder.
        closed: folders that can't be entered.
    """

    images: list[Path]
    closed: list[Path]


def find_images(folder: str | Path) -> Found:
    """The images in a folder and its inner folders, links followed; says which files are passed over.

    A folder is searched once, under its own name, and a link to a folder above it isn't followed. Hidden files, which
    systems leave beside images, are passed over without a word.

    Raises:
        InterLCMError: it isn't a folder, or there are no images in it and no folder that can't be entered.
    """
    folder = to_path(folder)
    if in_bucket(folder):
        return _in_bucket(folder)
    if not os.path.isdir(folder):
        raise InterLCMError(f"{folder}: {'not a folder' if os.path.lexists(folder) else 'no such folder'}")
    images: list[Path] = []
    closed: list[Path] = []
    others: list[Path] = []
    for path in _files(folder, closed):
        if path.suffix.lower() in READABLE:
            images.append(path)
        elif not path.name.startswith("."):
            others.append(path)
    images.sort(key=lambda path: path.relative_to(folder).as_posix())
    _say(folder, others)
    if not images and not closed:
        raise _no_images(folder)
    return Found(images, closed)


def _in_bucket(folder: Path) -> Found:
    """The images in a bucket's folder, by one listing."""
    files = [path for path in folder.files() if not path.name.startswith(".")]
    images = [path for path in files if path.suffix.lower() in READABLE]
    if not files:
        raise InterLCMError(f"{folder}: no such folder")
    _say(folder, [path for path in files if path.suffix.lower() not in READABLE])
    if not images:
        raise _no_images(folder)
    return Found(images, [])


def _no_images(folder: Path) -> InterLCMError:
    return InterLCMError(f"{folder}: no images in this folder ({', '.join(READABLE)})")


def _files(folder: Path, closed: list[Path]) -> Iterator[Path]:
    """All files below; folders that can't be entered are added to `closed`."""
    searched: set[str] = set()
    links = [folder]
    # Links are followed when all else is searched, so that none changes what other files are called.
    for start in links:
        real = os.path.realpath(start)
        if start != folder and (real in searched or Path(os.path.realpath(start.parent)).is_relative_to(real)):
            _log.warning(
                "%s: a link passed over, as it leads to a folder that is searched already", printable(str(start))
            )
            continue
        for parent, inner, names in os.walk(start, onerror=lambda error: closed.append(Path(error.filename))):
            searched.add(os.path.realpath(parent))
            yield from (Path(parent, name) for name in names)
            links += [Path(parent, name) for name in sorted(inner) if os.path.islink(os.path.join(parent, name))]
            inner[:] = [name for name in inner if os.path.realpath(os.path.join(parent, name)) not in searched]


def _say(folder: Path, others: list[Path]) -> None:
    if not others:
        return
    kinds = Counter(path.suffix.lower() or "no suffix" for path in others)
    names = ", ".join(path.relative_to(folder).as_posix() for path in sorted(others)[:_NAMED])
    _log.warning(
        "%s: passed over what has no image's suffix (%d: %s): %s",
        printable(str(folder)),
        len(others),
        ", ".join(f"{count} {printable(kind)}" for kind, count in kinds.most_common(_NAMED)),
        printable(names) + (", ..." if len(others) > _NAMED else ""),
    )
