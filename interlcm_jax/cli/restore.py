"""`interlcm restore`: photos and faces, files and folders, to restored ones."""

import argparse
import dataclasses
import errno
import functools
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interlcm_jax.cli.report import Report
from interlcm_jax.errors import InterLCMError
from interlcm_jax.photos.plan import COMPARISONS, RESTORED_FACES, Job, plan
from interlcm_jax.runtime import distributed

if TYPE_CHECKING:
    from interlcm_jax.faces.detect import Detector
    from interlcm_jax.photos.image import ExtractedFaces, Parser, RestoreOptions
    from interlcm_jax.pipeline import InterLCM

# What is wrong with the output folder as a whole: no other file could be written either.
_NO_MORE_OUTPUT = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the subcommand and its options."""
    parser = commands.add_parser("restore", help="restore the faces in photos: files, folders or patterns")
    add = parser.add_argument
    add("inputs", nargs="+", type=Path, metavar="INPUT", help="image files, folders of these, or quoted patterns")
    add("-o", "--out", required=True, type=Path, metavar="OUT", help="folder for the results")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", metavar="NAME|DIR", help="a model folder, or a name of one (default: see --task)")
    which.add_argument(
        "--task", default="restoration", help="of the default model: restoration (default), colorization or inpainting"
    )
    add("--seed", type=int, default=0, help="seed of the noise, the same for every face (default: 0)")
    add("--color-fix", choices=("wavelet", "adain", "none"), help="default: the model's own")
    add("--num-network-calls", type=int, metavar="N", help="default: what the model was trained for")
    add("--fidelity", type=float, default=0.0, metavar="F", help="0 to 1: keep the input's own shapes (default: 0)")
    add(
        "--gray",
        choices=("auto", "keep", "color"),
        default="auto",
        help="colors of the result; auto: near-gray images keep theirs (default), keep: all do, color: none does",
    )
    add("--aligned", action="store_true", help="the images are aligned faces, cropped as FFHQ is: restore them whole")
    add("--upscale", type=float, default=2.0, metavar="X", help="how much larger a photo becomes (default: 2)")
    add("--only-center-face", action="store_true", help="of several faces, only the one in the middle")
    add("--detector", choices=("mtcnn", "retinaface"), help="default: retinaface if the model folder holds it")
    add("--format", choices=("png", "jpg", "webp", "tiff"), default="png", help="of the results (default: png)")
    add("--save-faces", action="store_true", help=f"every face, before and after, into OUT/{RESTORED_FACES}")
    add("--comparison", action="store_true", help=f"input and result side by side, into OUT/{COMPARISONS}")
    add("--skip-existing", action="store_true", help="go on with a folder that is half done")
    add("--json", action="store_true", help="the summary as JSON on standard output")
    add("--batch-size", type=int, default=1, metavar="N", help="faces at a time on each device (default: 1)")
    add("--vae-slice", type=int, metavar="N", help="of these, how many the VAE takes at a time, where memory is short")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="default: float32")
    add("--workers", type=int, default=min(4, os.cpu_count() or 1), metavar="N", help="threads that read and write")
    add("--no-compile-cache", action="store_true", help="compile anew, and keep nothing for the next time")
    distributed.add_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Restores every input; a bad file costs that file only, is named at the end and makes the exit code 1."""
    wanted = {RESTORED_FACES: arguments.save_faces, COMPARISONS: arguments.comparison}
    reserved = [name for name, used in wanted.items() if used]
    jobs = plan(arguments.inputs, arguments.out, f".{arguments.format}", reserved)
    # What can be checked is, before the weights are loaded.
    treatment = _checked(arguments)
    index, count = distributed.join(arguments)
    jobs = jobs[index::count]
    skipped = [job for job in jobs if arguments.skip_existing and job.target.exists()]
    there = set(skipped)
    report = Report([job for job in jobs if job not in there], arguments.out, skipped)
    if report.jobs:
        restoration = _load(arguments, treatment, len(report.jobs))
        _make_writable(arguments.out)
        with report:
            restoration.run(report)
    return report.print(as_json=arguments.json)


def _checked(arguments: argparse.Namespace) -> "RestoreOptions":
    from interlcm_jax.arguments import check_batch_size, check_fidelity, check_seed, check_vae_slice
    from interlcm_jax.photos.image import RestoreOptions

    check_seed(arguments.seed)
    check_fidelity(arguments.fidelity)
    check_batch_size(arguments.batch_size)
    if arguments.vae_slice is not None:
        check_vae_slice(arguments.vae_slice)
    if arguments.workers < 1:
        raise InterLCMError(f"--workers is {arguments.workers}, but must be at least 1")
    if arguments.out.exists() and not arguments.out.is_dir():
        raise InterLCMError(f"{arguments.out}: the folder can't be made (File exists)")
    return RestoreOptions(arguments.aligned, arguments.upscale, arguments.only_center_face, arguments.gray)


def _load(arguments: argparse.Namespace, treatment: "RestoreOptions", count: int) -> "_Restoration":
    """Loads the model and what goes with it, and says what is going to happen."""
    from interlcm_jax.arguments import check_calls
    from interlcm_jax.default_model import describe_model, find_model
    from interlcm_jax.faces.parsenet import load_parsenet
    from interlcm_jax.pipeline import InterLCM
    from interlcm_jax.runtime import compile_cache
    from interlcm_jax.runtime.batching import replicated_sharding

    cache = None if arguments.no_compile_cache else compile_cache.enable()
    folder = find_model(arguments.model, arguments.task)
    model = InterLCM.from_pretrained(folder, arguments.dtype, sharding=replicated_sharding())
    if arguments.model is None:
        print(describe_model(folder, model.config), file=sys.stderr)
    calls = check_calls(arguments.num_network_calls, None, model.config)
    detector = None if treatment.aligned else _detector(arguments.detector, folder)
    parser = None if treatment.aligned else load_parsenet(folder)
    kept = f"; it is kept in {cache} for the next time" if cache else ""
    print(
        f"{count} images; {calls} network calls at {model.config.image_size} px. With the first faces the program is "
        f"compiled for this machine, which takes a while{kept}",
        file=sys.stderr,
    )
    options = {
        "seed": arguments.seed,
        "color_fix": arguments.color_fix,
        "num_network_calls": arguments.num_network_calls,
        "fidelity": arguments.fidelity,
        "vae_slice": arguments.vae_slice,
        # A batch of more aligned faces than there are would only be padding.
        "batch_size": min(arguments.batch_size, count) if treatment.aligned else arguments.batch_size,
    }
    return _Restoration(model, treatment, detector, parser, options, arguments)


def _detector(name: str | None, folder: Path) -> "Detector":
    """The detector asked for, else the best there is."""
    from interlcm_jax.faces.mtcnn_detector import MTCNN
    from interlcm_jax.faces.retinaface_detector import load_retinaface

    retinaface = None if name == "mtcnn" else load_retinaface(folder)
    if name == "retinaface" and retinaface is None:
        raise InterLCMError(
            f"{folder}: no RetinaFace in this model folder; interlcm add --retinaface FILE puts it there"
        )
    return retinaface or MTCNN()


def _make_writable(out: Path) -> None:
    """Makes the output folder, and makes sure that files can be."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InterLCMError(f"{out}: the folder can't be made ({error.strerror})") from error
    try:
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise InterLCMError(f"{out}: nothing can be written into this folder ({error.strerror})") from error


class _OutputEndedError(InterLCMError):
    """The output folder takes no more files, which ends the run; an input that can't be opened costs itself only."""


@dataclasses.dataclass
class _Restoration:
    """How a job is carried out: opened and closed in threads, its faces restored in between."""

    model: "InterLCM"
    treatment: "RestoreOptions"
    detector: "Detector | None"
    parser: "Parser | None"
    options: dict[str, Any]
    arguments: argparse.Namespace

    def run(self, report: Report) -> None:
        """Carries out the jobs of a report."""
        import jax

        from interlcm_jax.runtime.overlap import overlapped

        def done(job: Job, outcome: int | Exception) -> None:
            if isinstance(outcome, _OutputEndedError):
                raise InterLCMError(
                    f"{outcome}; {len(report.faces)} images are done, --skip-existing does the rest later"
                )
            report.done(job, outcome)

        restoring = functools.partial(self.model.restore_all, **self.options)
        try:
            overlapped(report.jobs, self.open, restoring, self.close, done, self.arguments.workers)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise InterLCMError(
                "the device has too little memory: lower --batch-size or --vae-slice, or take bfloat16"
            ) from error

    def open(self, job: Job) -> "ExtractedFaces":
        """Reads an image and cuts its faces out."""
        from interlcm_jax.photos.image import extract_faces

        return extract_faces(job.source, self.model.config, self.treatment, self.detector)

    def close(self, job: Job, opened: "ExtractedFaces", restored: list[np.ndarray | None]) -> int:
        """Pastes the faces and writes a job's files; returns how many faces."""
        from interlcm_jax.photos.image import paste_back

        if broken := sum(face is None for face in restored):
            raise InterLCMError(f"{job.source}: the networks gave NaN or infinity for {broken} faces; try float32")
        if not restored:
            return 0
        pixels, faces = paste_back(opened, restored, self.model.config, self.treatment, self.parser)
        try:
            self._write(job, opened, pixels, faces)
        except InterLCMError as error:
            if getattr(error.__cause__, "errno", None) in _NO_MORE_OUTPUT:
                raise _OutputEndedError(str(error)) from error
            raise
        return len(faces)

    def _write(self, job: Job, opened: "ExtractedFaces", pixels: np.ndarray, faces: list[np.ndarray]) -> None:
        """Writes the files of a job, the result last, so that one that is there is complete."""
        from interlcm_jax.imaging.io import write_photo
        from interlcm_jax.photos.image import side_by_side

        name = job.target.relative_to(self.arguments.out)
        if self.arguments.save_faces:
            for i, pair in enumerate(zip(opened.faces, faces, strict=True), 1):
                for what, face in zip(("_input", ""), pair, strict=True):
                    file = name.with_name(f"{name.stem}_{i}{what}{name.suffix}")
                    write_photo(self.arguments.out / RESTORED_FACES / file, face)
        if self.arguments.comparison:
            write_photo(self.arguments.out / COMPARISONS / name, side_by_side(opened.photo.pixels, pixels))
        write_photo(job.target, pixels, opened.photo)
