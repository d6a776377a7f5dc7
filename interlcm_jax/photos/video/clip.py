"""What a video file holds, and which ones are refused."""

import dataclasses
import os
from fractions import Fraction
from pathlib import Path

import numpy as np

from interlcm_jax.errors import InterLCMError
from interlcm_jax.photos.video.pyav import av

HDR = {16: "PQ", 18: "HLG"}  # FFmpeg's numbers of transfer functions
UNSPECIFIED = 2  # FFmpeg's number, for matrix, primaries and transfer function
BT709, BT601, BT2020 = 1, 6, 9  # FFmpeg's numbers of matrices
FULL = 2  # FFmpeg's number of the full range of levels
# Tags that aren't UTF-8 cost no video; from version 19 on PyAV sees to that itself.
_TAGS = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
HD = 720  # lines from which on a video that doesn't say is BT.709, as players take it


@dataclasses.dataclass(frozen=True)
class Colors:
    """How a video's numbers stand for colors, in FFmpeg's numbers.

    Attributes:
        matrix: from RGB to luma and chroma.
        range: 1 is levels 16 to 235, 2 all levels, 0 not stated, which is the first.
        primaries: of red, green and blue.
        transfer: from light to levels.
    """

    matrix: int
    range: int
    primaries: int
    transfer: int


@dataclasses.dataclass(frozen=True)
class Clip:
    """A video file that can be restored.

    Attributes:
        path: the file.
        stream: index of the video stream that is restored.
        width: of the upright frames, pixels.
        height: likewise.
        matrix: FFmpeg's display matrix (a, b, c, d); how stored frames are turned or mirrored to be upright.
        time_base: seconds of a timestamp's unit.
        rate: mean frames a second.
        pixel_aspect: width over height of a pixel of the upright frames; None where it isn't stated.
        format: FFmpeg's name of the pixel format.
        colors: see `Colors`.
        frames: how many there are, as far as the header says; 0 where it doesn't.
    """

    path: Path
    stream: int
    width: int
    height: int
    matrix: tuple[int, int, int, int]
    time_base: Fraction
    rate: Fraction
    pixel_aspect: Fraction | None
    format: str
    colors: Colors
    frames: int

    @property
    def on_its_side(self) -> bool:
        """Whether stored frames have width and height the other way round."""
        a, b, _, _ = self.matrix
        return abs(b) > abs(a)


def open_container(path: Path) -> "av.container.InputContainer":
    """A file opened for reading.

    Raises:
        InterLCMError: it isn't there, or isn't a video that FFmpeg reads.
    """
    if not os.path.isfile(path):
        what = "not a file" if os.path.lexists(path) else "no such file"
        raise InterLCMError(f"{path}: {what}")
    if not os.path.getsize(path):
        raise InterLCMError(f"{path}: the file is empty")
    try:
        return av.open(str(path), **_TAGS)
    except (av.FFmpegError, OSError) as error:
        raise InterLCMError(f"{path}: not a video that can be read, or cut off ({_reason(error)})") from error


def read_clip(path: Path) -> Clip:
    """Looks into a video: its header and first frame.

    Raises:
        InterLCMError: it can't be read, or is refused: without pictures, encrypted, cut off, HDR or interlaced.
    """
    with open_container(path) as container:
        stream = _video_stream(container, path)
        if stream.codec_context is None:
            raise InterLCMError(f"{path}: FFmpeg has no decoder for this video")
        _check_whole(container, stream, path)
        try:
            frame = next(container.decode(stream), None)
        except av.FFmpegError as error:
            raise InterLCMError(f"{path}: the first frame can't be decoded ({_reason(error)})") from error
        if frame is None:
            raise InterLCMError(f"{path}: the video has no frames")
        return _clip(path, stream, frame)


def _clip(path: Path, stream: "av.VideoStream", frame: "av.VideoFrame") -> Clip:
    if frame.color_trc in HDR:
        raise InterLCMError(
            f"{path}: HDR video ({HDR[frame.color_trc]}) can't be restored: the model knows standard range; convert it "
            "first, for example with FFmpeg's filters zscale and tonemap"
        )
    if frame.interlaced_frame:
        raise InterLCMError(f"{path}: interlaced video; make whole frames first, for example with ffmpeg -vf bwdif")
    matrix = display_matrix(frame)
    aspect = stream.codec_context.sample_aspect_ratio or stream.sample_aspect_ratio or None
    width, height = frame.width, frame.height
    clip = Clip(
        path,
        stream.index,
        width,
        height,
        matrix,
        stream.time_base,
        stream.average_rate or stream.guessed_rate or Fraction(25),
        aspect,
        frame.format.name,
        Colors(int(frame.colorspace), int(frame.color_range), int(frame.color_primaries), int(frame.color_trc)),
        stream.frames,
    )
    if clip.on_its_side:
        return dataclasses.replace(clip, width=height, height=width, pixel_aspect=1 / aspect if aspect else None)
    return clip


def display_matrix(frame: "av.VideoFrame") -> tuple[int, int, int, int]:
    """Signs of the display matrix: x of a pixel is shown at a x + c y, and y at b x + d y."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
    upright = abs(a) >= abs(b)
    a, b, c, d = (int(np.sign(x)) for x in (a, b, c, d))
    return (a, 0, 0, d) if upright else (0, b, c, 0)


def _video_stream(container: "av.container.InputContainer", path: Path) -> "av.VideoStream":
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        what = "only sound" if container.streams.audio else "or the file is cut off"
        raise InterLCMError(f"{path}: no video in this file, {what}")
    return streams[0]


def _check_whole(container: "av.container.InputContainer", stream: "av.VideoStream", path: Path) -> None:
    """Refuses what is encrypted, and what its own index says is cut off."""
    if stream.codec_tag in ("encv", "drmi"):
        raise InterLCMError(f"{path}: the video is encrypted")
    for packet in container.demux(stream):
        if packet.has_sidedata("encryption_info") or packet.has_sidedata("encryption_init_info"):
            raise InterLCMError(f"{path}: the video is encrypted")
        break
    if "mp4" in container.format.name:
        end = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
        if end > container.size:
            raise InterLCMError(
                f"{path}: the file is cut off: {container.size} of at least {end} bytes are there; "
                "ffmpeg -i FILE -c copy NEW keeps what is whole"
            )
    container.seek(0)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
