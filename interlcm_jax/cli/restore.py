"""`interlcm restore`: restores the faces in photos and videos, given as files, folders or patterns."""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from interlcm_jax.cli import videos
from interlcm_jax.cli.face_options import add_face_options, face_choice
from interlcm_jax.cli.list_faces import list_faces
from interlcm_jax.cli.report import Report
from interlcm_jax.errors import InterLCMError
from interlcm_jax.photos.plan import COMPARISONS, NUMBERED_FACES, RESTORED_FACES, Job, plan, unfinished
from interlcm_jax.runtime import distributed

if TYPE_CHECKING:
    from interlcm_jax.photos.files import Outcome
    from interlcm_jax.photos.image import RestoreOptions, Upsampler


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the subcommand and its options."""
    parser = commands.add_parser("restore", help="restore the faces in photos and videos: files, folders or patterns")
    add = parser.add_argument
    add(
        "inputs",
        nargs="+",
        type=Path,
        metavar="INPUT",
        help="image and video files, folders of images, or quoted patterns",
    )
    add("-o", "--out", required=True, type=Path, metavar="OUT", help="folder for the results")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", metavar="NAME|DIR", help="a model folder or the name of one (default: see --task)")
    which.add_argument(
        "--task", default="restoration", help="the default model's: restoration (default), colorization, inpainting"
    )
    add("--seed", type=int, default=0, help="seed of the noise, the same for every face (default: 0)")
    add("--color-fix", choices=("wavelet", "adain", "none"), help="color correction (default: the model's)")
    add("--num-network-calls", type=int, metavar="N", help="network calls a face (default: the model's)")
    add("--fidelity", type=float, default=0.0, metavar="F", help="0 to 1: keep more of the input's shapes (default: 0)")
    add(
        "--gray",
        choices=("auto", "keep", "color"),
        default="auto",
        help="images that keep their colors; auto: gray and toned ones (default), keep: all, color: none",
    )
    add(
        "--leave-sharp",
        default="auto",
        metavar="auto|off|X",
        help="faces that stay as they are, being sharper than the model draws; X: above this detail (default: auto)",
    )
    add("--aligned", action="store_true", help="the images are aligned faces, cropped like FFHQ's")
    add("--upscale", type=float, metavar="X", help="how many times larger the result is (default: 2, of videos 1)")
    add(
        "--background-upsampler",
        metavar="NAME|DIR|FILE",
        help="enlarge photos by this network (see interlcm download --upsampler), not by interpolation",
    )
    add("--upsample-faces", action="store_true", help="faces too, where they become larger than the model draws them")
    add_face_options(parser)
    add("--only-center-face", action="store_const", dest="faces", const="center", help="the same as --faces center")
    add("--list-faces", action="store_true", help=f"only print the faces and draw them, into OUT/{NUMBERED_FACES}")
    add("--detector", choices=("mtcnn", "retinaface"), help="default: retinaface if the model has it, else mtcnn")
    add("--format", choices=("png", "jpg", "webp", "tiff"), default="png", help="of the results (default: png)")
    add("--save-faces", action="store_true", help=f"also write each face before and after, to OUT/{RESTORED_FACES}")
    add("--comparison", action="store_true", help=f"also write input and result side by side, to OUT/{COMPARISONS}")
    add("--skip-existing", action="store_true", help="skip images that have results, to finish an earlier run")
    add("--json", action="store_true", help="print the summary as JSON")
    add("--batch-size", type=int, default=1, metavar="N", help="faces at a time on each device (default: 1)")
    add("--vae-slice", type=int, metavar="N", help="faces at a time in the VAE, to save memory (default: all)")
    add(
        "--dtype",
        choices=("float32", "bfloat16", "auto"),
        default="float32",
        help="auto: bfloat16 where this machine is faster in it (default: float32)",
    )
    add("--workers", type=int, default=min(4, os.cpu_count() or 1), metavar="N", help="threads that read and write")
    add("--no-compile-cache", action="store_true", help="don't keep compiled programs for the next run")
    videos.add_arguments(parser)
    distributed.add_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Restores every input; a bad file costs that file only, is named at the end and makes the exit code 1."""
    from interlcm_jax.photos.image import RestoreOptions

    # Everything that can be checked is checked before the weights are loaded.
    clips, images = videos.plan(arguments)
    jobs = plan(
        images,
        arguments.out,
        f".{arguments.format}",
        save_faces=arguments.save_faces,
        comparison=arguments.comparison,
    )
    if arguments.workers < 1:
        raise InterLCMError(f"--workers is {arguments.workers}, but must be at least 1")
    if arguments.out.exists() and not arguments.out.is_dir():
        raise InterLCMError(f"{arguments.out}: the folder can't be made (File exists)")
    options = RestoreOptions(
        aligned=arguments.aligned,
        upscale=2.0 if arguments.upscale is None else arguments.upscale,
        **face_choice(arguments),
        gray=arguments.gray,
        leave_sharp=_sharp(arguments.leave_sharp),
        upsample_faces=arguments.upsample_faces,
    )
    if arguments.list_faces and options.aligned:
        raise InterLCMError("--list-faces looks for the faces of photos; an aligned face is one as a whole")
    _check_upsampler(arguments)
    index, count = distributed.join(arguments, "interlcm")
    jobs = (jobs + clips)[index::count]
    if arguments.list_faces:
        return list_faces(arguments, jobs, options)
    left = unfinished(jobs) if arguments.skip_existing else jobs
    outcomes, seconds = _restore(arguments, left, options) if left else ([], 0.0)
    done_now = set(left)
    skipped = [job for job in jobs if job not in done_now]
    return Report(outcomes, arguments.out, skipped, seconds).print(as_json=arguments.json)


def _sharp(text: str) -> str | float:
    """A number where it is one; anything else is `RestoreOptions`' to judge."""
    try:
        return float(text)
    except ValueError:
        return text


def _check_upsampler(arguments: argparse.Namespace) -> None:
    """Refuses what an upsampler isn't for."""
    if arguments.background_upsampler is None and arguments.upsample_faces:
        raise InterLCMError("--upsample-faces needs --background-upsampler, which names the network that enlarges them")
    if arguments.background_upsampler is not None and arguments.aligned:
        raise InterLCMError("--background-upsampler is for photos; aligned faces (--aligned) aren't enlarged")


def _load_upsampler(arguments: argparse.Namespace, dtype: str) -> "Upsampler | None":
    if arguments.background_upsampler is None:
        return None
    from interlcm_jax.photos.upsample import load_upsampler
    from interlcm_jax.runtime.batching import replicated_sharding

    return load_upsampler(arguments.background_upsampler, dtype, sharding=replicated_sharding())


def _restore(
    arguments: argparse.Namespace, jobs: list[Job], options: "RestoreOptions"
) -> "tuple[list[Outcome], float]":
    """Loads the model and what goes with it, says what is going to happen, and restores the images, then the videos.

    Returns:
        What became of each file, and the seconds it took, without loading.
    """
    from interlcm_jax.arguments import ModelOptions, check_options
    from interlcm_jax.default_model import describe_model, find_model
    from interlcm_jax.faces.load import load_detector
    from interlcm_jax.faces.parsenet import load_parsenet
    from interlcm_jax.model_folder import read_config
    from interlcm_jax.photos.files import OutputError, restore_files
    from interlcm_jax.pipeline import InterLCM
    from interlcm_jax.runtime import compile_cache
    from interlcm_jax.runtime.batching import replicated_sharding
    from interlcm_jax.runtime.platform import fastest_dtype

    folder = find_model(arguments.model, arguments.task)
    config = read_config(folder)
    model_options = ModelOptions(**{name: getattr(arguments, name) for name in ModelOptions.__annotations__})
    check_options(config, batch_size=arguments.batch_size, **model_options)
    cache = None if arguments.no_compile_cache else compile_cache.enable()
    dtype = fastest_dtype() if arguments.dtype == "auto" else arguments.dtype
    model = InterLCM.from_pretrained(folder, dtype, sharding=replicated_sharding())
    if arguments.model is None:
        print(describe_model(folder, config), file=sys.stderr)
    detector = None if options.aligned else load_detector(folder, arguments.detector)
    parser = None if options.aligned else load_parsenet(folder)
    upsampler = _load_upsampler(arguments, dtype)
    images, clips = videos.split(jobs)
    calls = arguments.num_network_calls or config.num_network_calls
    kept = f"; it is kept in {cache} for the next time" if cache else ""
    print(
        f"{videos.describe(images, clips)}; {calls} network calls at {config.image_size} px in {dtype}. With "
        f"the first faces the program is compiled for this machine, which takes a while{kept}",
        file=sys.stderr,
    )
    start = time.perf_counter()
    with logging_redirect_tqdm(), _Bar(total=len(images), unit="image", smoothing=0.1, disable=not images) as bar:
        try:
            outcomes = restore_files(
                model,
                images,
                arguments.out,
                options,
                detector=detector,
                parser=parser,
                upsampler=upsampler,
                save_faces=arguments.save_faces,
                comparison=arguments.comparison,
                batch_size=arguments.batch_size,
                workers=arguments.workers,
                done=bar.done,
                **model_options,
            )
        except OutputError as error:
            raise InterLCMError(f"{error}, --skip-existing does the rest later") from error
    if clips:
        outcomes += videos.restore(arguments, model, clips, options, detector, parser, upsampler, model_options)
    return outcomes, time.perf_counter() - start


class _Bar(tqdm):
    """A progress bar that counts faces and failures too."""

    faces = failed = 0

    def done(self, outcome: "Outcome") -> None:
        """Counts an image."""
        self.faces += outcome.faces
        self.failed += outcome.error is not None
        self.set_postfix_str(f"{self.faces} faces, {self.failed} failed", refresh=False)
        self.update()
