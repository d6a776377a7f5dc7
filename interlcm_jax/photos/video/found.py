"""The first look at a video: the faces of every frame, and where it cuts. Pieces of it are kept as they are done."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from interlcm_jax.faces.align import align
from interlcm_jax.faces.detail import detail
from interlcm_jax.faces.detect import Detector, Face
from interlcm_jax.faces.find import find_faces
from interlcm_jax.faces.paste import upscale_photo
from interlcm_jax.files.atomic import whole_file
from interlcm_jax.imaging.cuts import change, find_cuts, thumbnail
from interlcm_jax.imaging.gray import is_gray
from interlcm_jax.photos.search import enlargement
from interlcm_jax.photos.video.clip import Clip
from interlcm_jax.photos.video.frames import Frame, read_frames
from interlcm_jax.photos.video.work import Work
from interlcm_jax.runtime.background import background
from interlcm_jax.runtime.overlap import ahead

# Frames of a segment: what a killed run loses at most, and what a player jumps by.
SEGMENT = 96


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """What was found in consecutive frames.

    Attributes:
        pts: when each frame is shown, in units of the clip's time base.
        counts: faces in each frame.
        gray: which frames have no colors of their own.
        thumbnails: small copies of the frames; None in a whole video, whose cuts are known.
        landmarks: of all faces, frame by frame, in pixels of the frame as it is enlarged for the detector.
        boxes: likewise.
        scores: the detector's.
        details: see `faces.detail`.
    """

    pts: Int64[np.ndarray, " F"]
    counts: Int64[np.ndarray, " F"]
    gray: Bool[np.ndarray, " F"]
    thumbnails: UInt8[np.ndarray, "F t t 3"] | None
    landmarks: Float32[np.ndarray, "M 5 2"]
    boxes: Float32[np.ndarray, "M 4"]
    scores: Float32[np.ndarray, " M"]
    details: Float32[np.ndarray, " M"]

    def write(self, path: Path) -> None:
        """Writes a file that appears whole or not at all."""
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **{field.name: getattr(self, field.name) for field in dataclasses.fields(self)})

    @classmethod
    def read(cls, path: Path) -> "Found":
        """What `write` wrote."""
        with np.load(path) as arrays:
            return cls(**{field.name: arrays[field.name] for field in dataclasses.fields(cls)})

    def face(self, member: int) -> Face:
        """One of the faces."""
        return Face(self.boxes[member], self.landmarks[member], float(self.scores[member]))


@dataclasses.dataclass(frozen=True, eq=False)
class _Seen:
    """One frame's share of `Found`."""

    pts: int
    gray: bool
    thumbnail: UInt8[np.ndarray, "t t 3"]
    faces: list[Face]
    details: list[float]


def find_all(
    clip: Clip,
    work: Work,
    size: int,
    detector: Detector,
    workers: int,
    progress: Callable[[int], object],
) -> tuple[Found, Bool[np.ndarray, " F"]]:
    """Looks for faces in every frame, in threads; frames that an earlier run looked at are left out.

    Args:
        clip: the video.
        work: where pieces are kept.
        size: of the model's faces.
        detector: finds the faces.
        workers: threads.
        progress: told the number of every frame that is done.

    Returns:
        What was found, without thumbnails, and which frames are the first after a cut.
    """
    count = next(i for i in itertools.count() if not work.piece(i).exists())
    whole = count and len(Found.read(work.piece(count - 1)).pts) < SEGMENT
    if not whole:
        with contextlib.closing(_look(clip, count * SEGMENT, size, detector, workers)) as seen:
            count = _keep(seen, work, count, progress)
    return _joined(Found.read(work.piece(i)) for i in range(count))


def _keep(seen: Iterator[_Seen], work: Work, count: int, progress: Callable[[int], object]) -> int:
    """Writes what is seen in pieces, after the `count` that are there; how many there are then."""
    while True:
        part = []
        for one in itertools.islice(seen, SEGMENT):
            part.append(one)
            progress(count * SEGMENT + len(part))
        # A last piece that is short, or empty, says that nothing follows.
        _together(part).write(work.piece(count))
        count += 1
        if len(part) < SEGMENT:
            return count


def _look(clip: Clip, start: int, size: int, detector: Detector, workers: int) -> Iterator[_Seen]:
    def look(frame: Frame) -> _Seen:
        factor = enlargement(*frame.pixels.shape[:2], size)
        pixels = upscale_photo(frame.pixels, factor)
        faces = find_faces(pixels, detector)
        cut = [align(pixels, face.landmarks, size) for face in faces]
        details = [detail(face, factor * np.linalg.det(matrix[:, :2]) ** 0.5) for face, matrix in cut]
        return _Seen(frame.pts, is_gray(frame.pixels), thumbnail(frame.pixels), faces, details)

    frames = background(read_frames(clip, start), workers)
    with contextlib.closing(frames), ThreadPoolExecutor(workers) as pool:
        for _, future in ahead(pool, look, frames, lambda: 2 * workers):
            yield future.result()


def _together(seen: Sequence[_Seen]) -> Found:
    faces = [face for one in seen for face in one.faces]
    return Found(
        np.array([one.pts for one in seen], np.int64),
        np.array([len(one.faces) for one in seen], np.int64),
        np.array([one.gray for one in seen], bool),
        np.array([one.thumbnail for one in seen], np.uint8).reshape(len(seen), *thumbnail_shape()),
        np.array([face.landmarks for face in faces], np.float32).reshape(-1, 5, 2),
        np.array([face.box for face in faces], np.float32).reshape(-1, 4),
        np.array([face.score for face in faces], np.float32),
        np.array([value for one in seen for value in one.details], np.float32),
    )


def thumbnail_shape() -> tuple[int, int, int]:
    """Height, width and channels of a thumbnail."""
    return thumbnail(np.zeros((1, 1, 3), np.uint8)).shape


def _joined(pieces: Iterable[Found]) -> tuple[Found, Bool[np.ndarray, " F"]]:
    """All pieces in one, and the cuts; thumbnails of one piece are held at a time."""
    changes, last, parts = [], None, []
    for piece in pieces:
        for small in piece.thumbnails:
            changes.append(0.0 if last is None else change(last, small))
            last = small
        parts.append(dataclasses.replace(piece, thumbnails=None))
    names = [field.name for field in dataclasses.fields(Found) if field.name != "thumbnails"]
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Found(**joined, thumbnails=None), find_cuts(np.array(changes))
