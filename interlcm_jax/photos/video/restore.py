"""One video: its faces followed, restored and pasted; sound, subtitles and timestamps as they are."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Unpack

from interlcm_jax.arguments import ModelOptions, check_options
from interlcm_jax.errors import InterLCMError
from interlcm_jax.faces.detect import Detector, scoring_above
from interlcm_jax.faces.mtcnn_detector import MTCNN
from interlcm_jax.faces.paste import upscale_photo
from interlcm_jax.faces.steady import PICTURES
from interlcm_jax.files.paths import to_local
from interlcm_jax.photos.image import (
    Parser,
    RestoreOptions,
    check_photo_arguments,
    out_of_memory,
)
from interlcm_jax.photos.search import enlargement
from interlcm_jax.photos.video.clip import Clip, read_clip
from interlcm_jax.photos.video.encode import Encoder, Encoding, result_size
from interlcm_jax.photos.video.found import SEGMENT, find_all
from interlcm_jax.photos.video.frames import read_frames
from interlcm_jax.photos.video.join import FORMATS, join
from interlcm_jax.photos.video.plan import Plan, plan_faces
from interlcm_jax.photos.video.segments import Around, Enlarge, Finishing, restore_segment, with_neighbors
from interlcm_jax.photos.video.work import Work, describe_job, work_folder
from interlcm_jax.pipeline import InterLCM
from interlcm_jax.runtime.background import background

DEFAULT = RestoreOptions(upscale=1)
ENCODING = Encoding()
FINDING, RESTORING = "finding faces", "restoring"
# What is going on, how many frames of it are done, and of how many (0 where the file doesn't say).
Progress = Callable[[str, int, int], object]


def restore_video(
    model: InterLCM,
    source: str | Path,
    target: str | Path,
    options: RestoreOptions = DEFAULT,
    *,
    detector: Detector | None = None,
    parser: Parser | None = None,
    upsampler: Enlarge | None = None,
    encoding: Encoding = ENCODING,
    batch_size: int = 1,
    workers: int = min(4, os.cpu_count() or 1),
    progress: Progress = lambda what, done, total: None,
    **model_options: Unpack[ModelOptions],
) -> tuple[int, int]:
    """Restores the faces in a video.

    Faces are found in all frames first, followed, and their places steadied; then the frames are restored, segment by
    segment. What is done is kept in a hidden folder beside the result: the same call goes on with it after a stop, and
    gives the same file. The result appears whole or not at all.

    Args:
        model: the model.
        source: the video.
        target: the result; its suffix is one of `join.FORMATS`.
        options: what is done with each frame; faces are chosen, and left, for as long as they are followed.
        detector: finds the faces; None is MTCNN.
        parser: see `image.paste_back`.
        upsampler: enlarges frames by `options.upscale`; None is bicubic.
        encoding: how the result is encoded.
        batch_size: faces at a time on each device.
        workers: threads that find faces, cut them out and paste.
        progress: told of every frame in both passes.
        **model_options: as in `InterLCM.restore`.

    Returns:
        How many followed faces were restored, and how many were left as they are. Where there is none at all, no
        result is written.

    Raises:
        InterLCMError: the video can't be read or is refused, an argument isn't possible, the result can't be written,
            the device has too little memory, or the networks gave NaN or infinity.
    """
    check_photo_arguments(model, options, detector, parser)
    check_options(model.config, batch_size=batch_size, **model_options)
    if options.aligned:
        raise InterLCMError(f"{source}: aligned faces are images; videos are restored as they are")
    source, target = to_local(source), to_local(target)
    if target.suffix not in FORMATS:
        raise InterLCMError(f"{target}: the suffix must be one of {', '.join(FORMATS)}")
    encoding = encoding.resolved(target)
    clip = read_clip(source)
    detector = detector or MTCNN()
    functions = {"detector": detector, "parser": parser, "upsampler": upsampler}
    settings = {"options": options, "encoding": encoding, "batch": batch_size} | model_options
    with work_folder(target, describe_job(source, model, functions, settings)) as work:
        size = model.config.image_size
        looking = functools.partial(progress, FINDING)
        scoring = scoring_above(detector, options.detection_threshold)
        found, cuts = find_all(clip, work, size, scoring, workers, lambda done: looking(done, clip.frames))
        total = len(found.pts)
        if not total:
            raise InterLCMError(f"{source}: the video has no frames")
        factor = enlargement(clip.height, clip.width, size)
        shape = round(factor * clip.height), round(factor * clip.width)
        plan = plan_faces(found, cuts, shape, factor, model.config, options)
        if not plan.faces and not plan.left:
            return 0, 0
        finishing = Finishing(model.config, parser, options.upscale, upsampler or upscale_photo)
        restoring = functools.partial(model.restore_all, batch_size=batch_size, **model_options)
        pixels = result_size(clip, encoding, options.upscale)
        make = functools.partial(Encoder, clip, encoding, pixels)
        with out_of_memory(batch_size):
            _restore(
                clip, work, plan, total, finishing, restoring, make, workers, functools.partial(progress, RESTORING)
            )
        join(clip, target, encoding, pixels, [work.segment(i) for i in range(-(-total // SEGMENT))])
        return len(plan.faces), plan.left


def _restore(
    clip: Clip,
    work: Work,
    plan: Plan,
    total: int,
    finishing: Finishing,
    restoring: Callable,
    make: Callable[[], Encoder],
    workers: int,
    progress: Callable[[int, int], object],
) -> None:
    """Restores the segments that aren't there yet."""
    count = -(-total // SEGMENT)
    todo = next((i for i in range(count) if not work.segment(i).exists()), count)
    if todo == count:
        return
    start = todo * SEGMENT
    progress(start, total)
    frames = read_frames(clip, max(0, start - PICTURES))
    neighbors = with_neighbors(frames, plan, finishing.config.image_size, start)
    with contextlib.closing(background(neighbors, 2 * workers)) as around:
        for index in range(todo, count):
            first = index * SEGMENT
            encoder = make()
            part = _first(around, min(SEGMENT, total - first))
            restore_segment(part, first, restoring, finishing, encoder, workers, lambda done: progress(done, total))
            encoder.finish().write(work.segment(index))


def _first(items: Iterator[Around], count: int) -> Iterator[Around]:
    """The next so many; unlike islice, it asks for no item after them, and misses none."""
    for _ in range(count):
        item = next(items, None)
        if item is None:
            raise InterLCMError("the video gave fewer frames than at first; is it being written?")
        yield item
