"""The second pass: faces cut out, steadied and restored, pasted and encoded, one segment after the other."""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
from jaxtyping import Float32, UInt8

from interlcm_jax.errors import InterLCMError
from interlcm_jax.faces.align import cut_out
from interlcm_jax.faces.outline import head_mask
from interlcm_jax.faces.paste import paste_faces, upscale_photo
from interlcm_jax.faces.steady import PICTURES, over_steady, steady_mask, steady_picture
from interlcm_jax.imaging.gray import recolor
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.photos.image import Parser, as_trained
from interlcm_jax.photos.search import enlargement
from interlcm_jax.photos.video.frames import Frame
from interlcm_jax.photos.video.plan import Place, Plan
from interlcm_jax.runtime.overlap import overlapped

Face = UInt8[np.ndarray, "S S 3"]
Enlarge = Callable[[UInt8[np.ndarray, "H W 3"], float], UInt8[np.ndarray, "h w 3"]]


@dataclasses.dataclass(frozen=True, eq=False)
class Around:
    """A frame with its faces as they are in it and in the frames around it.

    Attributes:
        frame: the frame.
        places: of its faces.
        pictures: for each, aligned pictures of consecutive frames.
        middles: for each, which of them is this frame's.
    """

    frame: Frame
    places: list[Place]
    pictures: list[list[Face]]
    middles: list[int]


@dataclasses.dataclass(frozen=True, eq=False)
class _Opened:
    """What the networks get of a frame."""

    faces: list[Face]


@dataclasses.dataclass(frozen=True, eq=False)
class _Closed:
    """A frame with its faces restored."""

    around: Around
    lq: list[Face]
    faces: list[Face]
    masks: list[Float32[np.ndarray, "S S"]]


def with_neighbors(frames: Iterable[Frame], plan: Plan, size: int, start: int) -> Iterator[Around]:
    """Cuts faces out of the frames, and gives those from number `start` on together with their neighbors'.

    Args:
        frames: in order, from `PICTURES` before `start` on, where there are so many.
        plan: where faces are.
        size: of the aligned faces.
        start: the first frame that is given.
    """
    held: collections.deque[tuple[Frame, list[Place], dict[int, Face]]] = collections.deque(maxlen=2 * PICTURES + 1)

    def around(number: int) -> Around:
        position = next(i for i, (frame, _, _) in enumerate(held) if frame.index == number)
        frame, places, _ = held[position]
        near = list(held)[max(0, position - PICTURES) : position + PICTURES + 1]
        before = min(position, PICTURES)
        pictures, middles = [], []
        for place in places:
            cut = [(i, faces[place.track]) for i, (_, _, faces) in enumerate(near) if place.track in faces]
            pictures.append([face for _, face in cut])
            middles.append([i for i, _ in cut].index(before))
        return Around(frame, places, pictures, middles)

    last = None
    for frame in frames:
        places = plan.places(frame.index)
        cut: dict[int, Face] = {}
        if places:
            pixels = upscale_photo(frame.pixels, enlargement(*frame.pixels.shape[:2], size))
            cut = {place.track: cut_out(pixels, place.matrix, size) for place in places}
        held.append((frame, places, cut))
        last = frame.index
        if last - PICTURES >= start:
            yield around(last - PICTURES)
    for number in range(max(start, last - PICTURES + 1), last + 1) if last is not None else ():
        yield around(number)


@dataclasses.dataclass(frozen=True, eq=False)
class Finishing:
    """How restored faces get into their frames.

    Attributes:
        config: the model's.
        parser: see `photos.image.paste_back`.
        upscale: how many times larger the result is.
        enlarge: makes the ground that faces are pasted on.
    """

    config: ModelConfig
    parser: Parser | None
    upscale: float
    enlarge: Enlarge

    def open(self, around: Around) -> _Opened:
        """The faces of a frame, steadied, as the model takes them."""
        pictures = zip(around.pictures, around.middles, strict=True)
        return _Opened([as_trained(steady_picture(some, middle), self.config) for some, middle in pictures])

    def close(self, around: Around, opened: _Opened, restored: list[Face | None]) -> _Closed:
        """Restored faces with the colors they keep, and their masks."""
        if any(face is None for face in restored):
            raise InterLCMError(
                f"the networks gave NaN or infinity for a face in frame {around.frame.index}; try float32"
            )
        faces = [
            recolor(face, lq) if place.gray else face
            for face, lq, place in zip(restored, opened.faces, around.places, strict=True)
        ]
        return _Closed(around, opened.faces, faces, self._masks(around, opened.faces, faces))

    def _masks(self, around: Around, lq: list[Face], faces: list[Face]) -> list[Float32[np.ndarray, "S S"]]:
        if not faces:
            return []
        if self.parser:
            return [np.asarray(mask, np.float32) for mask in self.parser(np.stack(faces))]
        if self.config.task != "restoration":
            return [np.ones(face.shape[:2], np.float32) for face in faces]
        aligned = [place.landmarks @ place.matrix[:, :2].T + place.matrix[:, 2] for place in around.places]
        return [head_mask(*each) for each in zip(lq, faces, aligned, strict=True)]

    def paste(self, closed: _Closed, masks: Sequence[Float32[np.ndarray, "S S"]]) -> UInt8[np.ndarray, "h w 3"]:
        """A frame of the result."""
        pixels, places = closed.around.frame.pixels, closed.around.places
        ground = self.enlarge(pixels, self.upscale)
        if not places:
            return ground
        pasted = [over_steady(*each) for each in zip(closed.faces, closed.lq, masks, strict=True)]
        masks = [mask * place.opacity for (_, mask), place in zip(pasted, places, strict=True)]
        matrices = [place.matrix @ _to_enlarged(pixels, self.config.image_size) for place in places]
        own = ground is not pixels
        return paste_faces(ground, [face for face, _ in pasted], matrices, self.upscale, masks, overwrite=own)


def _to_enlarged(pixels: UInt8[np.ndarray, "H W 3"], size: int) -> np.ndarray:
    """From pixels of a frame to those of the enlarged one, whose sides are rounded."""
    factor = enlargement(*pixels.shape[:2], size)
    across, down = (round(factor * side) / side for side in pixels.shape[1::-1])
    return np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2], [0, 0, 1]])


class Taker(Protocol):
    """What takes restored frames in order: an `Encoder`."""

    def add(self, pixels: UInt8[np.ndarray, "H W 3"], pts: int) -> None:
        """Takes the next frame."""


class _Line:
    """Frames in order, which wait for the masks of those after them and are then pasted and encoded."""

    def __init__(self, finishing: Finishing, encoder: Taker, done: Callable[[int], object]):
        self._finishing, self._encoder, self._done = finishing, encoder, done
        self._held: list[_Closed] = []
        self._next = 0

    def add(self, closed: _Closed) -> None:
        self._held.append(closed)
        if len(self._held) - self._next > PICTURES:
            self._finish_one()

    def finish(self) -> None:
        while self._next < len(self._held):
            self._finish_one()

    def _finish_one(self) -> None:
        closed = self._held[self._next]
        near = self._held[max(0, self._next - PICTURES) : self._next + PICTURES + 1]
        masks = [self._mask(near, place.track, closed) for place in closed.around.places]
        pixels = self._finishing.paste(closed, masks)
        self._encoder.add(pixels, closed.around.frame.pts)
        self._done(closed.around.frame.index + 1)
        if self._next == PICTURES:
            self._held.pop(0)
        else:
            self._next += 1

    @staticmethod
    def _mask(near: Sequence[_Closed], track: int, wanted: _Closed) -> Float32[np.ndarray, "S S"]:
        masks, middle = [], 0
        for closed in near:
            for place, mask in zip(closed.around.places, closed.masks, strict=True):
                if place.track == track:
                    middle = len(masks) if closed is wanted else middle
                    masks.append(mask)
        return steady_mask(masks, middle)


def restore_segment(
    frames: Iterable[Around],
    first: int,
    restoring: Callable[[Iterable[Face]], Iterator[Face | None]],
    finishing: Finishing,
    encoder: Taker,
    workers: int,
    done: Callable[[int], object],
) -> None:
    """Restores consecutive frames and encodes them; faces of different frames share batches.

    A segment depends on nothing but its frames and their neighbors: no batch and no mask reaches into the next.

    Args:
        frames: of the segment.
        first: number of its first frame.
        restoring: restored faces for faces, see `runtime.overlap.overlapped`.
        finishing: how they get into their frames.
        encoder: takes the frames.
        workers: threads.
        done: called after each frame with how many are done.

    Raises:
        InterLCMError: the networks gave NaN or infinity, or a frame can't be read.
    """
    early: dict[int, _Closed] = {}
    line = _Line(finishing, encoder, done)
    under_way: collections.deque[Future] = collections.deque()
    # One thread, as frames are encoded in order, beside the one that drives the device.
    writer = ThreadPoolExecutor(1)
    number = first

    def note(around: Around, result: _Closed | Exception) -> None:
        nonlocal number
        if isinstance(result, Exception):
            raise result
        early[around.frame.index] = result
        while number in early:
            under_way.append(writer.submit(line.add, early.pop(number)))
            number += 1
        while len(under_way) > 2 * workers or (under_way and under_way[0].done()):
            under_way.popleft().result()

    try:
        overlapped(frames, finishing.open, restoring, finishing.close, note, workers)
        under_way.append(writer.submit(line.finish))
        for future in under_way:
            future.result()
    finally:
        writer.shutdown(cancel_futures=True)
