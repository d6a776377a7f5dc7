"""The folder of a run: one training at a time is at work in it, and all of its processes see the same one."""

import contextlib
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import filelock
import jax
import numpy as np
from jax.experimental import multihost_utils

from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.paths import in_bucket

LOCK, OWNER = ".lock", ".owner"
# A network file system may take a while until all see a new file.
_SEEN_WITHIN = 15.0


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Makes the folder and holds it for this training; the lock ends with the process that holds it, however it ends.

    Every process of the training calls it. A bucket has no locks: there the newest training takes the folder over, and
    the one before ends where it would save next, see `check_owned`.

    Raises:
        InterLCMError: another training is at work in it, it can't be made, or some process sees another folder.
    """
    with (_lease if in_bucket(folder) else _lock)(folder) if jax.process_index() == 0 else contextlib.nullcontext():
        if jax.process_count() > 1:
            _check_all_see(folder)
        yield


# What this process has written as the owner of a bucket's folder.
_owned: dict[Path, str] = {}


@contextlib.contextmanager
def _lease(folder: Path) -> Iterator[None]:
    _owned[folder] = f"{uuid.uuid4()} {socket.gethostname()}"
    (folder / OWNER).write_text(_owned[folder])
    try:
        yield
    finally:
        del _owned[folder]


def check_owned(folder: Path) -> None:
    """Checks that no other training has taken the folder over, where this process holds one in a bucket.

    Raises:
        InterLCMError: one has.
    """
    if folder in _owned and (owner := (folder / OWNER).read_text()) != _owned[folder]:
        raise InterLCMError(
            f"{folder}: another training has begun in this folder, on {owner.partition(' ')[2]}; this one ends and "
            "leaves it the folder"
        )


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / LOCK)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise InterLCMError(
            f"{folder}: another training is at work in this folder. Stop it, or name another run.folder"
        ) from None
    except NotImplementedError:
        # Some network file systems have no locks.
        yield
        return
    except OSError as error:
        raise InterLCMError(f"{folder}: the run's folder can't be made or written to ({error.strerror})") from error
    try:
        yield
    finally:
        lock.release()


def _check_all_see(folder: Path) -> None:
    """Process 0 writes a file that the others look for."""
    token = np.frombuffer(uuid.uuid4().bytes, np.uint8)
    name = f".seen-{bytes(multihost_utils.broadcast_one_to_all(token)).hex()}"
    if jax.process_index() == 0:
        (folder / name).touch()
    multihost_utils.sync_global_devices("the folder's token is written")
    seen = multihost_utils.process_allgather(np.array(_appears(folder / name)))
    if jax.process_index() == 0:
        (folder / name).unlink()
    if not seen.all():
        blind = ", ".join(str(process) for process in np.flatnonzero(~seen))
        raise InterLCMError(
            f"{folder}: process {blind} of {len(seen)} doesn't see what process 0 writes there. Checkpoints need one "
            f"folder for all processes: name one on a disk that all machines share as run.folder (this is "
            f"{socket.gethostname()})"
        )


def _appears(path: Path) -> bool:
    until = time.monotonic() + _SEEN_WITHIN
    while not path.exists():
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True
