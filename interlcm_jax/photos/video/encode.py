"""Frames of one segment to encoded packets, the same ones each time."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from interlcm_jax.errors import InterLCMError, number_problems
from interlcm_jax.files.atomic import whole_file
from interlcm_jax.photos.video.clip import Clip
from interlcm_jax.photos.video.frames import from_rgb
from interlcm_jax.photos.video.pyav import av

# What each encoder does with the same number of threads is the same on every machine.
THREADS = 4
# The name of each encoder, its constant rate factor where none is asked for, and what it is told besides.
ENCODERS: Mapping[str, tuple[int, Mapping[str, str]]] = {
    # With x264's macroblock tree, the same frames don't always give the same packets.
    "libx264": (17, {"preset": "medium", "mbtree": "0"}),
    "libx265": (20, {"preset": "medium", "x265-params": "log-level=error"}),
    "libvpx-vp9": (24, {"b": "0", "deadline": "good", "cpu-used": "3"}),
}
MOST_CRF = {"libx264": 51, "libx265": 51, "libvpx-vp9": 63}
TAGS = {"libx265": "hvc1"}  # of the MP4 family, which Apple's players want


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How restored videos are encoded.

    Attributes:
        encoder: one of `ENCODERS`; None is libvpx-vp9 for WebM, else libx264.
        crf: constant rate factor: lower is better and larger; None is the encoder's in `ENCODERS`.
    """

    encoder: str | None = None
    crf: int | None = None

    def __post_init__(self):
        if self.encoder not in (None, *ENCODERS):
            raise InterLCMError(f"video encoder is {self.encoder!r}, but must be one of {', '.join(ENCODERS)}")
        if self.crf is not None and (problems := number_problems("video crf", self.crf, 0, MOST_CRF["libvpx-vp9"])):
            raise InterLCMError(problems[0])

    def resolved(self, target: Path) -> "Encoding":
        """Without None, for a result of this name.

        Raises:
            InterLCMError: WebM is asked to hold what it can't, or the encoder takes no such crf.
        """
        webm = target.suffix.lower() == ".webm"
        encoder = self.encoder or ("libvpx-vp9" if webm else "libx264")
        if webm and encoder != "libvpx-vp9":
            raise InterLCMError(f"{target}: WebM doesn't hold what {encoder} makes; use libvpx-vp9")
        crf = ENCODERS[encoder][0] if self.crf is None else self.crf
        if crf > MOST_CRF[encoder]:
            raise InterLCMError(f"video crf is {crf}, but {encoder} takes 0 to {MOST_CRF[encoder]}")
        return Encoding(encoder, crf)


@dataclasses.dataclass(frozen=True, eq=False)
class Packets:
    """Encoded frames, in the order they are decoded.

    Attributes:
        data: bytes of all, one after the other.
        sizes: bytes of each.
        pts: when each is shown, in units of the clip's time base.
        keys: which can be decoded without others.
    """

    data: UInt8[np.ndarray, " N"]
    sizes: np.ndarray
    pts: np.ndarray
    keys: np.ndarray

    def write(self, path: Path) -> None:
        """Writes a file that appears whole or not at all."""
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **{field.name: getattr(self, field.name) for field in dataclasses.fields(self)})

    @classmethod
    def read(cls, path: Path) -> "Packets":
        """What `write` wrote."""
        with np.load(path) as arrays:
            return cls(**{field.name: arrays[field.name] for field in dataclasses.fields(cls)})


def pixel_format(clip: Clip, encoder: str) -> str:
    """8 bits a sample, with as many samples of color as the clip has."""
    layout = av.VideoFormat(clip.format, 2, 2)
    if layout.is_rgb:
        return "yuv444p"
    chroma = "444" if "444" in clip.format else "422" if "422" in clip.format else "420"
    return f"yuv{chroma}p"


def result_size(clip: Clip, encoding: Encoding, upscale: float) -> tuple[int, int]:
    """Width and height of what is encoded.

    H.264 and H.265 hold even sizes only where color has half the samples: an odd side gets one more line of pixels.
    """
    width, height = (max(1, round(upscale * side)) for side in (clip.width, clip.height))
    form = pixel_format(clip, encoding.encoder)
    if encoding.encoder == "libvpx-vp9" or form == "yuv444p":
        return width, height
    return width + width % 2, height + height % 2 * (form == "yuv420p")


def set_up(context: "av.VideoCodecContext", clip: Clip, encoding: Encoding, size: tuple[int, int]) -> None:
    """Tells an encoder all that decides on its packets."""
    context.width, context.height = size
    context.pix_fmt = pixel_format(clip, encoding.encoder)
    context.time_base, context.framerate = clip.time_base, clip.rate
    if clip.pixel_aspect:
        context.sample_aspect_ratio = clip.pixel_aspect
    colors = clip.colors
    matrix = 2 if av.VideoFormat(clip.format, 2, 2).is_rgb else colors.matrix
    context.colorspace, context.color_range = matrix, colors.range
    context.color_primaries, context.color_trc = colors.primaries, colors.transfer
    context.thread_count = THREADS
    context.options = {"crf": str(encoding.crf), **ENCODERS[encoding.encoder][1]}
    context.flags |= av.codec.context.Flags.global_header | av.codec.context.Flags.bitexact


class Encoder:
    """Encodes one segment, which begins with a key frame.

    Args:
        clip: what is restored.
        encoding: resolved.
        size: width and height of the result, see `result_size`.
    """

    def __init__(self, clip: Clip, encoding: Encoding, size: tuple[int, int]):
        self._clip, self._size = clip, size
        self._context = av.CodecContext.create(encoding.encoder, "w")
        set_up(self._context, clip, encoding, size)
        self._packets: list[av.Packet] = []

    def add(self, pixels: UInt8[np.ndarray, "H W 3"], pts: int) -> None:
        """Encodes the next frame, which is padded by its last line where it is smaller."""
        width, height = self._size
        missing = (0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0)
        pixels = np.pad(pixels, missing, mode="edge") if any(map(any, missing)) else pixels
        frame = from_rgb(pixels, self._clip, self._context.pix_fmt)
        frame.pts, frame.time_base = pts, self._clip.time_base
        self._packets += self._context.encode(frame)

    def finish(self) -> Packets:
        """The packets of all frames."""
        self._packets += self._context.encode(None)
        parts = [np.frombuffer(bytes(packet), np.uint8) for packet in self._packets]
        return Packets(
            np.concatenate(parts),
            np.array([len(part) for part in parts], np.int64),
            np.array([packet.pts for packet in self._packets], np.int64),
            np.array([packet.is_keyframe for packet in self._packets], bool),
        )
