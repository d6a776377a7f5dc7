"""Output that appears whole or not at all."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from interlcm_jax.errors import InterLCMError


def check_absent(path: Path) -> None:
    """Checks that a folder can be created there, for those who have much to do before `whole_folder`.

    Raises:
        InterLCMError: something of this name exists already.
    """
    if path.exists():
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
def whole_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder next to `path`, which is renamed to it when the block succeeds and deleted when not.

    Raises:
        InterLCMError: `path` exists already, or its parent can't be written to.
    """
    path = Path(path)
    check_absent(path)
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
    """Yields a temporary file name next to `path`, replaced by it when the block succeeds."""
    path = Path(path)
    temporary = _beside(path)
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _beside(path: Path) -> Path:
    """A hidden name in the same folder that nobody else takes.

    Whoever makes it gets the permissions of the umask, which `tempfile` ignores, and which no thread can ask for
    without changing it for all. The name is cut, as the random part must not make it too long for the disk.
    """
    return path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}.partial")
