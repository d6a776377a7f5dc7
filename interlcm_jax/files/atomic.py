"""Output that appears whole or not at all."""

import contextlib
import functools
import os
import platform
import re
import secrets
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.paths import in_bucket, to_path

# The end of our temporary names. Downloads that can be gone on with are called otherwise, and stay.
_OURS = re.compile(r"\.(?P<machine>[0-9a-f]{8})-(?P<process>[0-9]+)-[0-9a-f]{16}\.partial$")
# Seconds after which another machine's process, or one on Windows, is taken to be gone.
_ABANDONED = 86_400
# Files that are copied into a bucket at the same time.
_AT_A_TIME = 8


def check_absent(path: Path, last: str = "") -> None:
    """Checks that a folder can be created there, for those who have much to do before `whole_folder`.

    Args:
        path: the folder.
        last: as for `whole_folder`.

    Raises:
        InterLCMError: something of this name exists already.
    """
    if (path / last if in_bucket(path) else path).exists():
        raise InterLCMError(f"{path}: exists already; name a new folder, or move this one away")


def check_space(folder: Path, size: int) -> None:
    """Checks that a folder's disk takes `size` more bytes, for whoever would find out late that it doesn't.

    Raises:
        InterLCMError: it has less space left.
    """
    if size > (free := shutil.disk_usage(folder).free):
        raise InterLCMError(
            f"{folder}: the disk is too full: {size / 1e9:.2f} GB are needed, {free / 1e9:.2f} are free"
        )


@contextlib.contextmanager
def whole_folder(path: Path, last: str = "") -> Iterator[Path]:
    """Yields a temporary folder next to `path`, which is renamed to it when the block succeeds and deleted when not.

    Into a bucket the files of a temporary folder are copied when the block succeeds. One of them is copied last, and
    says by being there that all are; without it the folder counts as absent, and is written anew.

    Args:
        path: the folder to make.
        last: the name of the file that is copied last.

    Raises:
        InterLCMError: `path` exists already, or its parent can't be written to.
    """
    path = to_path(path)
    check_absent(path, last)
    if in_bucket(path):
        with tempfile.TemporaryDirectory(prefix="interlcm-") as local:
            yield Path(local)
            _upload(Path(local), path, last)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(path)
        temporary.mkdir()
    except OSError as error:
        raise InterLCMError(f"{path}: the folder can't be made ({error.strerror})") from error
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a temporary file name next to `path`, which is renamed to it when the block succeeds.

    A process that is killed leaves its temporary file; the next one that writes into the folder deletes it. Into a
    bucket the file is copied.
    """
    path = to_path(path)
    if in_bucket(path):
        with tempfile.TemporaryDirectory(prefix="interlcm-") as local:
            yield Path(local) / path.name
            path.upload(Path(local) / path.name)
        return
    temporary = _beside(path)
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _upload(local: Path, path: Path, last: str) -> None:
    """Copies a folder into a bucket, several files at a time, one of them last."""
    files = sorted(file for file in local.rglob("*") if file.is_file() and file != local / last)
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        for _ in pool.map(lambda file: path.joinpath(file.relative_to(local)).upload(file), files):
            pass
    if last:
        (path / last).upload(local / last)


def _beside(path: Path) -> Path:
    """A hidden name in the same folder that nobody else takes, and that says which process writes there.

    Whoever makes it gets the permissions of the umask, which `tempfile` ignores, and which no thread can ask for
    without changing it for all. The name is cut, as the random part must not make it too long for the disk.
    """
    _clear(path.parent)
    return path.with_name(f".{path.name[:40]}.{_machine()}-{os.getpid()}-{secrets.token_hex(8)}.partial")


@functools.cache
def _clear(folder: Path) -> None:
    """Deletes what killed processes left behind; called again for a folder, it does nothing."""
    for left in folder.glob(".*.partial"):
        # Another process may do the same, or may be about to name its file.
        with contextlib.suppress(OSError):
            if (name := _OURS.search(left.name)) and _is_left(left, name["machine"], int(name["process"])):
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def _is_left(path: Path, machine: str, process: int) -> bool:
    """Whether nobody writes there any more; of another machine's processes only time tells."""
    # On Windows, `os.kill` ends the process that it is asked about.
    if machine != _machine() or sys.platform == "win32":
        return time.time() - path.stat().st_mtime > _ABANDONED
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass
    return False


@functools.cache
def _machine() -> str:
    """Which machine, or container on it, the numbers of processes belong to."""
    namespace = Path("/proc/self/ns/pid")
    numbering = os.readlink(namespace) if namespace.is_symlink() else ""
    return f"{zlib.crc32(f'{platform.node()} {numbering}'.encode()):08x}"
