"""Restores a test set into a folder; results that are there are kept if they were made in the same way."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

from interlcm_jax import __version__
from interlcm_jax.arguments import ModelOptions, check_options
from interlcm_jax.errors import InterLCMError
from interlcm_jax.evaluation.compare import Progress
from interlcm_jax.evaluation.pairs import Files
from interlcm_jax.files.atomic import whole_file
from interlcm_jax.model_folder import CONFIG, read_config
from interlcm_jax.photos.files import restore_files
from interlcm_jax.photos.image import RestoreOptions
from interlcm_jax.photos.plan import Job, unfinished
from interlcm_jax.pipeline import InterLCM
from interlcm_jax.runtime.batching import replicated_sharding

RESTORED, ABOUT = "restored", "restoration.json"
# Aligned faces; gray ones keep their colors, as `interlcm restore` and the releases of the field do. It is the model
# that is scored: no face is left as it is.
ALIGNED = RestoreOptions(aligned=True, leave_sharp="off")


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


@dataclasses.dataclass(frozen=True)
class Restored:
    """A restored test set.

    Attributes:
        files: the restored images by name.
        about: everything that they depend on.
        failures: what was wrong with images that couldn't be restored, by name.
        kept: how many were restored already.
    """

    files: Files
    about: dict[str, Any]
    failures: dict[str, str]
    kept: int


def restore_set(
    folder: Path,
    data: Path,
    files: Files,
    out: Path,
    *,
    dtype: str = "float32",
    batch_size: int = 1,
    workers: int = 1,
    progress: Progress = lambda name, total: lambda: None,
    **model_options: Unpack[ModelOptions],
) -> Restored:
    """Restores a test set into the folder of an evaluation, except for the images that it holds already.

    Args:
        folder: the model folder.
        data: the test set's folder, for the record.
        files: its aligned low-quality faces by name.
        out: the folder of the evaluation.
        dtype: compute dtype, "float32" or "bfloat16".
        batch_size: faces at a time on each device.
        workers: threads that read and write.
        progress: see `compare.compare`.
        **model_options: as in `InterLCM.restore`.

    Raises:
        InterLCMError: the folder was begun in another way or takes no more files, an argument isn't possible, the
            device has too little memory, or no image could be restored.
    """
    check_options(read_config(folder), batch_size=batch_size, **model_options)
    about = {
        "model": model_digest(folder),
        "data": str(data.resolve()),
        **model_options,
        "dtype": dtype,
        "version": __version__,
    }
    begin(out, about)
    jobs = {name: Job(file, out / RESTORED / f"{name}.png") for name, file in files.items()}
    left = unfinished(list(jobs.values()))
    errors: dict[Job, str | None] = {}
    if left:
        model = InterLCM.from_pretrained(folder, dtype, sharding=replicated_sharding())
        tick = progress("restoring", len(left))
        outcomes = restore_files(
            model,
            left,
            out / RESTORED,
            ALIGNED,
            batch_size=batch_size,
            workers=workers,
            done=lambda outcome: tick(),
            **model_options,
        )
        errors = {outcome.job: outcome.error for outcome in outcomes}
    failures = {name: error for name, job in jobs.items() if (error := errors.get(job)) is not None}
    restored = {name: job.target for name, job in jobs.items() if name not in failures}
    if not restored:
        raise InterLCMError(f"none of {len(files)} images could be restored: {next(iter(failures.values()))}")
    return Restored(restored, about, failures, len(jobs) - len(left))
