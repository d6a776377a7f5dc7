"""The videos among the inputs of `interlcm restore`."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from interlcm_jax.errors import InterLCMError, printable
from interlcm_jax.photos.plan import Job
from interlcm_jax.photos.video.names import is_video, plan_videos, split_videos

if TYPE_CHECKING:
    from interlcm_jax.arguments import ModelOptions
    from interlcm_jax.faces.detect import Detector
    from interlcm_jax.faces.paste import Upsampler
    from interlcm_jax.photos.files import Outcome
    from interlcm_jax.photos.image import Parser, RestoreOptions
    from interlcm_jax.photos.video.encode import Encoding
    from interlcm_jax.pipeline import InterLCM


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of videos."""
    group = parser.add_argument_group("videos (pip install 'interlcm-jax[video]')")
    group.add_argument(
        "--video-encoder", metavar="NAME", help="libx264, libx265 or libvpx-vp9 (default: libx264; for WebM libvpx-vp9)"
    )
    group.add_argument("--video-crf", type=int, metavar="N", help="lower is better and larger (default: 17, 20 or 24)")


def plan(arguments: argparse.Namespace) -> tuple[list[Job], list[Path]]:
    """The videos with their results, checked as far as that goes without a model; and the other inputs.

    Raises:
        InterLCMError: a result would replace an input, PyAV is missing, or an option isn't possible.
    """
    clips, others = split_videos(arguments.inputs)
    jobs = plan_videos(clips, arguments.out)
    for job in jobs:
        _encoding(arguments).resolved(job.target)
    if jobs and arguments.aligned:
        raise InterLCMError(f"{jobs[0].source}: --aligned is for images of one face; leave it out for videos")
    if jobs and (arguments.save_faces or arguments.comparison):
        print("--save-faces and --comparison are for images: nothing is written there for videos", file=sys.stderr)
    if jobs and arguments.list_faces:
        raise InterLCMError(f"{jobs[0].source}: --list-faces is for images; leave videos out")
    return jobs, others


def split(jobs: Sequence[Job]) -> tuple[list[Job], list[Job]]:
    """Images and videos among jobs."""
    return [job for job in jobs if not is_video(job.source)], [job for job in jobs if is_video(job.source)]


def describe(images: Sequence[Job], clips: Sequence[Job]) -> str:
    """How many of each there are."""
    parts = [f"{len(images)} images"] if images or not clips else []
    return ", ".join(parts + [f"{len(clips)} videos"] * bool(clips))


def restore(
    arguments: argparse.Namespace,
    model: "InterLCM",
    jobs: Sequence[Job],
    options: "RestoreOptions",
    detector: "Detector | None",
    parser: "Parser | None",
    upsampler: "Upsampler | None",
    model_options: "ModelOptions",
) -> "list[Outcome]":
    """Restores one video after the other; one that fails costs that one only.

    Returns:
        What became of each.
    """
    from interlcm_jax.photos.files import Outcome, make_folder
    from interlcm_jax.photos.video.restore import restore_video

    make_folder(arguments.out)
    options = dataclasses.replace(options, upscale=1.0 if arguments.upscale is None else arguments.upscale)
    outcomes = []
    for job in jobs:
        with logging_redirect_tqdm(), _Bar(unit="frame", smoothing=0.05) as bar:
            bar.name = printable(job.source.name)
            try:
                result = restore_video(
                    model,
                    job.source,
                    job.target,
                    options,
                    detector=detector,
                    parser=parser,
                    upsampler=upsampler,
                    encoding=_encoding(arguments),
                    batch_size=arguments.batch_size,
                    workers=arguments.workers,
                    progress=bar.tell,
                    **model_options,
                )
            except KeyboardInterrupt:
                print("what is done of this video is kept: the same command goes on with it", file=sys.stderr)
                raise
            # Whatever is wrong with one video, the others are done, and this one's error is reported.
            except Exception as error:
                result = error
        outcomes.append(Outcome.of(job, result))
    return outcomes


def _encoding(arguments: argparse.Namespace) -> "Encoding":
    from interlcm_jax.photos.video.encode import Encoding

    return Encoding(arguments.video_encoder, arguments.video_crf)


class _Bar(tqdm):
    """Progress in frames, once for finding faces and once for restoring them."""

    name = what = ""

    def tell(self, what: str, done: int, total: int) -> None:
        """Shows that so many frames are done; `total` is 0 where it isn't known."""
        if what != self.what:
            self.what = what
            self.reset(total or None)
            self.set_description(f"{self.name}: {what}", refresh=False)
            # Frames that an earlier run did count neither for the rate nor for the time left.
            self.initial = self.n = done
        self.update(done - self.n)
