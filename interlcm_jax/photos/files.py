"""Many images restored into a folder: the work of `interlcm restore` and of `evaluate.py --model`."""

import contextlib
import dataclasses
import errno
import functools
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Self, Unpack

import numpy as np
from jaxtyping import UInt8

from interlcm_jax.arguments import ModelOptions, check_kind, check_options
from interlcm_jax.errors import InterLCMError
from interlcm_jax.faces.detect import Detector
from interlcm_jax.faces.mtcnn_detector import MTCNN
from interlcm_jax.files.paths import in_bucket, to_path
from interlcm_jax.imaging.io import write_photo
from interlcm_jax.photos.image import (
    DEFAULT,
    ExtractedFaces,
    Parser,
    RestoreOptions,
    Upsampler,
    check_photo_arguments,
    extract_faces,
    out_of_memory,
    paste_back,
    side_by_side,
)
from interlcm_jax.photos.plan import COMPARISONS, RESTORED_FACES, Job, plan, unfinished
from interlcm_jax.pipeline import InterLCM
from interlcm_jax.runtime.overlap import overlapped

# What is wrong with the output folder as a whole: no other file could be written either.
_NO_MORE_OUTPUT = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}

# An object that is made and removed, to see whether a bucket takes any.
_TRIED = ".interlcm-writes"

_INPUTS = "files, folders, patterns or jobs; images in memory are restored by restore_photo or InterLCM.restore_all"


class OutputError(InterLCMError):
    """The output folder takes no more files, which ends the run."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one image.

    Attributes:
        job: the input file and its result.
        faces: number of faces restored.
        left: number of faces left as they are, as they have more detail than the model draws. Where no face was found
            at all, no result is written, unless there is an upsampler.
        enlarged: whether no face was found, and the photo was enlarged by the upsampler all the same.
        error: what went wrong, or None.
    """

    job: Job
    faces: int = 0
    left: int = 0
    enlarged: bool = False
    error: str | None = None

    @classmethod
    def of(cls, job: Job, result: tuple[int, int, bool] | Exception) -> Self:
        """The outcome of a job that wrote its result (see the attributes), or raised an error."""
        if isinstance(result, InterLCMError):
            return cls(job, error=str(result))
        if isinstance(result, Exception):
            return cls(job, error=f"{job.source}: {type(result).__name__}: {result}")
        return cls(job, *result)


def restore_files(
    model: InterLCM,
    inputs: str | Path | Sequence[str | Path | Job],
    out: str | Path,
    options: RestoreOptions = DEFAULT,
    *,
    detector: Detector | None = None,
    parser: Parser | None = None,
    upsampler: Upsampler | None = None,
    suffix: str = ".png",
    skip_existing: bool = False,
    save_faces: bool = False,
    comparison: bool = False,
    batch_size: int = 1,
    workers: int = min(4, os.cpu_count() or 1),
    done: Callable[[Outcome], object] = lambda outcome: None,
    **model_options: Unpack[ModelOptions],
) -> list[Outcome]:
    """Restores the faces in many images and writes the results; faces of different images share batches.

    A file that can't be read, restored or written costs that file only: its outcome says what is wrong.

    Args:
        model: the model.
        inputs: image files, folders and patterns, see `plan.plan`; or jobs, which say themselves where in `out`
            results go.
        out: the folder of the results, which is made.
        options: what is done with each image.
        detector: finds the faces; None is MTCNN.
        parser: see `image.paste_back`.
        upsampler: see `image.paste_back`; with it photos without a face are written too, enlarged.
        suffix: the format of results, one of `imaging.io.SUFFIXES`.
        skip_existing: leave out images that have results.
        save_faces: write every face, as it came and restored, into the folder `RESTORED_FACES` of `out`.
        comparison: write each image and its result side by side into the folder `COMPARISONS` of `out`.
        batch_size: faces at a time on each device.
        workers: threads that read, find faces, paste and write.
        done: called in this thread after every image, in any order.
        **model_options: as in `InterLCM.restore`.

    Returns:
        What became of each image, in the order of the inputs, jobs first.

    Raises:
        InterLCMError: an argument isn't possible, an input folder holds no images, or the device has too little memory.
        OutputError: the output folder takes no more files; those that were written are whole.
    """
    check_photo_arguments(model, options, detector, parser, upsampler)
    check_kind("out", out, str | os.PathLike, "a folder")
    out = to_path(out)
    jobs = _jobs(inputs, out, suffix, save_faces, comparison)
    jobs = unfinished(jobs) if skip_existing else jobs
    check_options(model.config, batch_size=batch_size, **model_options)
    check_kind("workers", workers, int, "an integer from 1")
    if workers < 1:
        raise InterLCMError(f"workers is {workers}, but must be at least 1")
    if not jobs:
        return []
    make_folder(out)
    if options.aligned:
        # A batch of more faces than there are would only be padding.
        batch_size = min(batch_size, len(jobs))
    elif detector is None:
        detector = MTCNN()
    outcomes: dict[Job, Outcome] = {}

    def note(job: Job, result: tuple[int, int, bool] | Exception) -> None:
        if isinstance(result, OutputError):
            finished = sum(outcome.error is None for outcome in outcomes.values())
            raise OutputError(f"{result}; {finished} images are done") from result
        outcomes[job] = Outcome.of(job, result)
        done(outcomes[job])

    files = _Files(model, out, options, detector, parser, upsampler, save_faces, comparison)
    restoring = functools.partial(model.restore_all, batch_size=batch_size, **model_options)
    with out_of_memory(batch_size):
        overlapped(jobs, files.read, restoring, files.write, note, workers)
    return [outcomes[job] for job in jobs]


def make_folder(folder: Path) -> None:
    """Makes an output folder, and makes sure that files can be written into it.

    Raises:
        InterLCMError: it can't be made, or takes no files.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InterLCMError(f"{folder}: the folder can't be made ({error.strerror})") from error
    if in_bucket(folder):
        # Its errors say all.
        (folder / _TRIED).touch()
        with contextlib.suppress(OSError):
            (folder / _TRIED).unlink()
        return
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InterLCMError(f"{folder}: nothing can be written into this folder ({error.strerror})") from error


def _jobs(
    inputs: str | Path | Sequence[str | Path | Job], out: Path, suffix: str, save_faces: bool, comparison: bool
) -> list[Job]:
    inputs = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    check_kind("inputs", inputs, Iterable, _INPUTS)
    inputs = list(inputs)
    for one in inputs:
        check_kind("an input", one, str | os.PathLike | Job, _INPUTS)
    jobs = [one for one in inputs if isinstance(one, Job)]
    paths = [one for one in inputs if not isinstance(one, Job)]
    return jobs + plan(paths, out, suffix, save_faces=save_faces, comparison=comparison)


@dataclasses.dataclass(frozen=True)
class _Files:
    """What threads do before and after the networks: see `restore_files`."""

    model: InterLCM
    out: Path
    options: RestoreOptions
    detector: Detector | None
    parser: Parser | None
    upsampler: Upsampler | None
    save_faces: bool
    comparison: bool

    def read(self, job: Job) -> ExtractedFaces:
        """Reads an image and cuts its faces out."""
        return extract_faces(job.source, self.model.config, self.options, self.detector)

    def write(self, job: Job, extracted: ExtractedFaces, restored: list[np.ndarray | None]) -> tuple[int, int, bool]:
        """Pastes the faces and writes a job's files, the result last, so that one that is there is complete.

        Returns:
            How many faces were restored, how many were left as they are, and whether there were none and the photo was
            enlarged all the same.
        """
        left = len(extracted.left)
        faceless = not restored and not left
        if faceless and self.upsampler is None:
            return 0, 0, False
        try:
            pixels, faces = paste_back(
                extracted, restored, self.model.config, self.options, self.parser, self.upsampler
            )
        except InterLCMError as error:
            raise InterLCMError(f"{job.source}: {error}") from error
        try:
            if self.save_faces or self.comparison:
                self._write_extras(job, extracted, pixels, faces)
            write_photo(job.target, pixels, extracted.photo)
        except InterLCMError as error:
            if getattr(error.__cause__, "errno", None) in _NO_MORE_OUTPUT:
                raise OutputError(str(error)) from error
            raise
        return len(faces), left, faceless

    def _write_extras(
        self, job: Job, extracted: ExtractedFaces, pixels: UInt8[np.ndarray, "H W 3"], faces: list[np.ndarray]
    ) -> None:
        name = job.target.relative_to(self.out)
        if self.save_faces:
            for i, pair in enumerate(zip(extracted.faces, faces, strict=True), 1):
                for what, face in zip(("_input", ""), pair, strict=True):
                    file = name.with_name(f"{name.stem}_{i}{what}{name.suffix}")
                    write_photo(self.out / RESTORED_FACES / file, face)
        if self.comparison:
            write_photo(self.out / COMPARISONS / name, side_by_side(extracted.photo.pixels, pixels))
