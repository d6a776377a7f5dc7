"""A model restores a test set into a folder; what is there already is kept, if it was made in the same way."""

import dataclasses
import errno
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from interlcm_jax.errors import InterLCMError
from interlcm_jax.evaluation.pairs import Files
from interlcm_jax.files.atomic import whole_file
from interlcm_jax.imaging.io import write_photo
from interlcm_jax.model_folder import CONFIG
from interlcm_jax.photos.image import ExtractedFaces, RestoreOptions, extract_faces, paste_back
from interlcm_jax.pipeline import InterLCM
from interlcm_jax.runtime.overlap import overlapped

RESTORED, ABOUT = "restored", "restoration.json"
# Aligned faces; near-gray ones keep their colors, as `interlcm restore` and the releases of the field do.
TREATMENT = RestoreOptions(aligned=True)
# The folder takes no more files: no other image could be written either.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


def model_digest(folder: Path) -> str:
    """SHA-256 of a model folder: its config and all weights, by file name."""
    digest = hashlib.sha256()
    for path in sorted([folder / CONFIG, *folder.glob("*.safetensors")]):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def begin(out: Path, about: Mapping[str, Any]) -> None:
    """Makes the folder of an evaluation, or checks that what is in it was restored in the same way.

    Args:
        out: the folder.
        about: everything that the restored images depend on.

    Raises:
        InterLCMError: it was begun with other settings, which are named; or nothing can be written there.
    """
    path = out / ABOUT
    try:
        if not path.exists():
            if (out / RESTORED).exists():
                raise InterLCMError(f"{out}: holds {RESTORED}/ but no {ABOUT}; choose another folder")
            out.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as temporary:
                temporary.write_text(json.dumps(about, indent=2) + "\n")
        before = json.loads(path.read_text())
    except OSError as error:
        raise InterLCMError(f"{path}: can't be written or read ({error.strerror})") from error
    except json.JSONDecodeError as error:
        raise InterLCMError(f"{path}: not whole ({error}); choose another folder") from error
    names = [name for name in {**before, **about} if before.get(name) != about.get(name)]
    if names:
        changed = "; ".join(f"{name} was {before.get(name)!r} and is {about.get(name)!r}" for name in names)
        raise InterLCMError(f"{out}: was begun in another way ({changed}); choose another folder")


def targets(files: Files, out: Path) -> Files:
    """Where each image's restored copy goes."""
    return {name: out / RESTORED / f"{name}.png" for name in files}


@dataclasses.dataclass(frozen=True)
class _Job:
    name: str
    source: Path
    target: Path


def restore(
    model: InterLCM,
    files: Files,
    out: Path,
    *,
    workers: int,
    progress: Callable[[], object] = lambda: None,
    **options: Any,
) -> dict[str, str]:
    """Restores images into the folder of an evaluation; one that can't be read or restored costs that image only.

    Args:
        model: the model.
        files: aligned low-quality faces by name: those that aren't restored yet.
        out: the folder of the evaluation.
        workers: threads that read and write.
        progress: called after every image.
        **options: `batch_size`, `seed` and the others of `InterLCM.restore_all`.

    Returns:
        What was wrong, by name.

    Raises:
        InterLCMError: the device has too little memory, or the folder takes no more files.
    """
    failures: dict[str, str] = {}
    jobs = [_Job(name, files[name], target) for name, target in targets(files, out).items()]

    def opening(job: _Job) -> ExtractedFaces:
        return extract_faces(job.source, model.config, TREATMENT, None)

    def closing(job: _Job, opened: ExtractedFaces, restored: list[np.ndarray | None]) -> None:
        if any(face is None for face in restored):
            raise InterLCMError(f"{job.source}: the networks gave NaN or infinity; try float32")
        pixels, _ = paste_back(opened, restored, model.config, TREATMENT)
        write_photo(job.target, pixels)

    def done(job: _Job, outcome: Any) -> None:
        if isinstance(outcome, InterLCMError):
            if getattr(outcome.__cause__, "errno", None) in _FULL:
                raise outcome
            failures[job.name] = str(outcome)
        elif isinstance(outcome, Exception):
            failures[job.name] = f"{job.source}: {type(outcome).__name__}: {outcome}"
        progress()

    try:
        overlapped(jobs, opening, functools.partial(model.restore_all, **options), closing, done, workers)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise InterLCMError("the device has too little memory: lower --restore-batch-size") from error
    return failures
