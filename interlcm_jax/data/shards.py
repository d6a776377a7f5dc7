"""The shards of a dataset: which there are, with their checksums; and copies of them, for a dataset in a bucket."""

import contextlib
import hashlib
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock

from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.atomic import check_space, whole_file
from interlcm_jax.files.user_folders import cache_folder

# In a dataset's folder, size and SHA-256 of every other file by its name.
MANIFEST = "manifest.json"
# Shards that are copied at the same time.
_AT_A_TIME = 8

_log = logging.getLogger(__name__)


def write_manifest(folder: Path) -> None:
    """Writes down what is in a dataset's folder."""
    files = sorted(path for path in folder.iterdir() if path.name != MANIFEST)
    entries = {path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in files}
    (folder / MANIFEST).write_text(json.dumps(entries, indent=2) + "\n")


def check_sizes(folder: Path) -> None:
    """Checks by one listing that all files of a dataset in a bucket are there; without a manifest nothing is known.

    Raises:
        InterLCMError: files are missing or have other sizes than they were written with: each is named.
    """
    entries, sizes = _manifest(folder), {path.name: size for path, size in folder.files().items()}
    wrong = [f"{folder / name}: missing" for name in entries if name not in sizes]
    wrong += [
        f"{folder / name}: {sizes[name]} bytes instead of {entry['bytes']}"
        for name, entry in entries.items()
        if sizes.get(name, entry["bytes"]) != entry["bytes"]
    ]
    _raise(folder, wrong)


def local_copy(folder: Path, gigabytes: float) -> Path:
    """A copy of a dataset on this machine's disk, made unless it is there; one for all processes of the machine.

    Args:
        folder: the dataset's, in a bucket.
        gigabytes: what the copy may take at most.

    Raises:
        InterLCMError: it would take more, or the disk has no room for it; or files aren't what was written: each is
            named.
    """
    entries = _manifest(folder)
    if not entries:
        raise InterLCMError(f"{folder}: has no {MANIFEST}; build it again with interlcm dataset")
    total = sum(entry["bytes"] for entry in entries.values())
    if total > gigabytes * 1e9:
        raise InterLCMError(
            f"{folder}: has {total / 1e9:.2f} GB, and data.local_cache allows {gigabytes:g}. Each epoch takes every "
            "record, in another order, so all of it is copied: allow that much, or mount the bucket (gcsfuse, s3fs)"
        )
    version = hashlib.sha256(json.dumps([str(folder), entries]).encode()).hexdigest()[:16]
    copy = _datasets() / f"{folder.name}-{version}"
    copy.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(copy / ".lock"):
        left = {name: entry for name, entry in entries.items() if not (copy / name).exists()}
        if left:
            size = sum(entry["bytes"] for entry in left.values())
            check_space(copy, size)
            _log.warning("%s: %d files (%.2f GB) are copied to %s first", folder, len(left), size / 1e9, copy)
            with ThreadPoolExecutor(_AT_A_TIME) as pool:
                found = pool.map(lambda name: _copied(folder / name, copy / name, left[name]), left)
                _raise(folder, [line for line in found if line is not None])
    return copy


def _copied(source: Path, target: Path, entry: dict[str, int | str]) -> str | None:
    """Copies a file; tells what is wrong with it, and then there is no copy."""
    with contextlib.suppress(_OtherError), whole_file(target) as temporary:
        source.download(temporary)
        if _sha256(temporary) != entry["sha256"]:
            raise _OtherError
        return None
    return f"{source}: isn't what was written (its SHA-256 differs)"


class _OtherError(Exception):
    """A file isn't what it should be."""


def _manifest(folder: Path) -> dict[str, dict[str, int | str]]:
    try:
        return json.loads((folder / MANIFEST).read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InterLCMError(f"{folder / MANIFEST}: not whole ({error}); build the dataset again") from error


def _datasets() -> Path:
    try:
        return cache_folder() / "datasets"
    except RuntimeError as error:
        raise InterLCMError("no home folder to copy data to; name one in INTERLCM_CACHE") from error


def _raise(folder: Path, wrong: list[str]) -> None:
    if wrong:
        lines = "\n".join(f"  {line}" for line in wrong)
        raise InterLCMError(f"{folder}: {len(wrong)} files of the dataset aren't what was written:\n{lines}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
