"""Which files are restored, and where each result goes."""

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.paths import in_bucket, to_path
from interlcm_jax.imaging.io import SUFFIXES
from interlcm_jax.imaging.listing import find_images
from interlcm_jax.photos.names import name_results

RESTORED_FACES, COMPARISONS, NUMBERED_FACES = "restored_faces", "comparisons", "numbered_faces"


class Job(NamedTuple):
    """An input file and its result."""

    source: Path
    target: Path


def plan(
    inputs: Sequence[str | Path],
    out: Path,
    suffix: str = ".png",
    *,
    save_faces: bool = False,
    comparison: bool = False,
) -> list[Job]:
    """Pairs of input file and output file; a folder's inner folders are kept; `names.name_results` names the outputs.

    Args:
        inputs: files, folders, and patterns such as `photos/**/*.jpg`. A file that doesn't exist is a job
            too, which fails when it is read.
        out: the folder of the results; images in it aren't inputs.
        suffix: the results'.
        save_faces: keep results out of the folder `RESTORED_FACES` of `out`.
        comparison: keep results out of the folder `COMPARISONS` of `out`.

    Raises:
        InterLCMError: an input folder holds no images, a result would replace an input or lie in a folder that is kept
            free, or results have no format of this suffix.
    """
    if suffix.lower() not in SUFFIXES:
        raise InterLCMError(f"suffix is {suffix!r}, but must be one of {', '.join(SUFFIXES)}")
    names = name_results(_sources([to_path(path) for path in inputs], out), suffix)
    jobs = [Job(source, out / name) for source, name in names.items()]
    check_not_replaced(jobs)
    reserved = [name for name, used in ((RESTORED_FACES, save_faces), (COMPARISONS, comparison)) if used]
    if clashes := {name for name in reserved for _, target in jobs if out / name in target.parents}:
        raise InterLCMError(
            f"an inner folder of the input is called {', '.join(clashes)}, which {out} needs for others"
        )
    return jobs


def check_not_replaced(jobs: Sequence[Job]) -> None:
    """Checks that no result would replace an input.

    Raises:
        InterLCMError: one would.
    """
    originals = {_real(source) for source, _ in jobs}
    if replaced := [str(target) for _, target in jobs if _real(target) in originals]:
        raise InterLCMError(f"results would replace these inputs: {', '.join(replaced)}; choose another folder")


def unfinished(jobs: Sequence[Job]) -> list[Job]:
    """The jobs that have no result yet; an empty file or a folder of its name is none."""
    # Of a bucket one listing says more than a request for each.
    listed = {folder: folder.files() for folder in {job.target.parent for job in jobs if in_bucket(job.target)}}
    return [job for job in jobs if not _is_done(job.target, listed)]


def _is_done(target: Path, listed: Mapping[Path, Mapping[Path, int]]) -> bool:
    if target.parent in listed:
        return listed[target.parent].get(target, 0) > 0
    return target.is_file() and target.stat().st_size > 0


def _sources(inputs: Sequence[Path], out: Path) -> Iterator[tuple[Path, Path]]:
    """Input files, and what of each one's path its result keeps."""
    for path in inputs:
        # os.path, as Path raises where a folder on the way is closed to us: that is left to reading.
        if path.is_dir() if in_bucket(path) else os.path.isdir(path):
            yield from _images(path, out)
        elif in_bucket(path):
            yield from _in_bucket(path)
        elif os.path.exists(path) or not glob.has_magic(str(path)):
            yield path, Path(path.name)
        elif matches := sorted(map(Path, glob.glob(str(path), recursive=True))):
            yield from _sources([match for match in matches if match.is_file()], out)
        else:
            raise InterLCMError(f"{path}: no file matches")


def _in_bucket(path: Path) -> Iterator[tuple[Path, Path]]:
    """An object, or those that match a pattern, which may have stars in its last name alone."""
    matches = sorted(path.parent.glob(path.name)) if glob.has_magic(path.name) else [path]
    if not matches:
        raise InterLCMError(f"{path}: no file matches")
    yield from ((match, Path(match.name)) for match in matches)


def _images(folder: Path, out: Path) -> Iterator[tuple[Path, Path]]:
    results = _real(out)
    listed = find_images(folder)
    # A folder closed to us counts as an image that can't be read: passed over, its images would be lost without a word.
    images = [*listed.images, *listed.closed]
    found = sorted(f for f in images if results == _real(folder) or results not in _real(f).parents)
    if not found:
        raise InterLCMError(f"{folder}: no images in this folder but results")
    yield from ((f, Path(*f.parts[len(folder.parts) :])) for f in found)


def _real(path: Path) -> Path:
    # Unlike Path.resolve, this takes links that lead nowhere or in a circle: reading them is what fails.
    return path if in_bucket(path) else Path(os.path.realpath(path))
