"""What is done of a video, kept beside the result until it is whole, so that a stopped run can be gone on with."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import jax
import numpy as np

import interlcm_jax
from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.atomic import whole_file
from interlcm_jax.photos.video.pyav import av
from interlcm_jax.pipeline import InterLCM

_log = logging.getLogger(__name__)
JOB, LOCK = "job.json", "lock"
_SAMPLE = 2**20  # bytes of the clip's start, middle and end that tell it from others


@dataclasses.dataclass(frozen=True)
class Work:
    """The folder of one video's unfinished result.

    Attributes:
        folder: hidden, beside the result.
    """

    folder: Path

    def piece(self, index: int) -> Path:
        """The file of what was found in a segment."""
        return self.folder / f"found-{index:06d}.npz"

    def segment(self, index: int) -> Path:
        """The file of a restored segment."""
        return self.folder / f"segment-{index:06d}.npz"


@contextlib.contextmanager
def work_folder(target: Path, job: dict[str, Any]) -> Iterator[Work]:
    """The folder of unfinished work for a result; what another job left there is deleted.

    It is deleted when the block succeeds, and stays when it doesn't.

    Args:
        target: the result.
        job: all that the work depends on, as `describe_job` gives it.

    Raises:
        InterLCMError: another process is at work there, or the folder can't be made.
    """
    folder = target.with_name(f".{target.name[:80]}.partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / LOCK)
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise InterLCMError(f"{target}: another process is restoring this video") from error
    except OSError as error:
        raise InterLCMError(f"{folder}: the folder can't be made ({error.strerror})") from error
    try:
        _claim(folder, job)
        yield Work(folder)
        _empty(folder)
    finally:
        lock.release()
    shutil.rmtree(folder, ignore_errors=True)


def _claim(folder: Path, job: dict[str, Any]) -> None:
    """Keeps the work of the same job, and clears that of any other."""
    text = json.dumps(job, indent=1, sort_keys=True)
    file = folder / JOB
    if file.is_file():
        if file.read_text() == text:
            return
        _log.warning("%s: unfinished work of another video, model or options is cleared", folder)
    _empty(folder)
    with whole_file(file) as temporary:
        temporary.write_text(text)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != LOCK:
            path.unlink()


def describe_job(
    source: Path, model: InterLCM, functions: dict[str, Callable | None], settings: dict
) -> dict[str, Any]:
    """All that a restored video depends on: work of a run that differs in any of it isn't gone on with.

    Args:
        source: the clip.
        model: the model.
        functions: what finds faces and the like, by name.
        settings: options, as text or numbers.
    """
    names = {name: getattr(one, "__qualname__", type(one).__qualname__) for name, one in functions.items()}
    devices = jax.local_devices()
    return {
        "source": _fingerprint(source),
        "model": _model_fingerprint(model),
        "functions": names,
        "settings": {name: repr(value) for name, value in settings.items()},
        "versions": {"interlcm_jax": interlcm_jax.__version__, "jax": jax.__version__, "av": av.__version__},
        "devices": f"{len(devices)} {devices[0].device_kind}",
    }


def _fingerprint(source: Path) -> dict[str, Any]:
    status = source.stat()
    digest = hashlib.sha256()
    with source.open("rb") as file:
        for start in (0, status.st_size // 2, max(0, status.st_size - _SAMPLE)):
            file.seek(start)
            digest.update(file.read(_SAMPLE))
    return {"size": status.st_size, "changed": status.st_mtime_ns, "sha256": digest.hexdigest()}


def _model_fingerprint(model: InterLCM) -> str:
    """Tells weights apart by their vectors (biases and norms), which every training step changes."""
    digest = hashlib.sha256(repr(model.config).encode())
    for leaf in jax.tree.leaves(model.weights):
        digest.update(f"{leaf.dtype} {leaf.shape}".encode())
        if leaf.ndim == 1:
            digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()
