"""The frames of a video, upright and RGB, one after the other; and back to the video's own colors."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

from interlcm_jax.errors import InterLCMError
from interlcm_jax.photos.video.clip import BT601, BT709, FULL, HD, Clip, open_container
from interlcm_jax.photos.video.pyav import av

_RGB_MATRIX = 0  # FFmpeg's number: no matrix, as for video that is stored as RGB
_SCALING = (
    av.video.reformatter.Interpolation.BICUBIC
    | av.video.reformatter.Interpolation.ACCURATE_RND
    | av.video.reformatter.Interpolation.FULL_CHR_H_INT
    | av.video.reformatter.Interpolation.FULL_CHR_H_INP
    | av.video.reformatter.Interpolation.BITEXACT
)


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """One frame.

    Attributes:
        index: its number, from 0.
        pts: when it is shown, in units of the clip's time base; more than that of the frame before.
        pixels: upright RGB.
    """

    index: int
    pts: int
    pixels: UInt8[np.ndarray, "H W 3"]


def read_frames(clip: Clip, start: int = 0) -> Iterator[Frame]:
    """The frames from number `start` on, in the order they are shown.

    Those before are decoded too: by seeking, a frame may come out otherwise than by playing.

    Raises:
        InterLCMError: the file is damaged, or its frames change their size.
    """
    index, last = 0, None
    with open_container(clip.path) as container:
        stream = container.streams[clip.stream]
        stream.thread_type = "AUTO"
        size = (clip.height, clip.width) if clip.on_its_side else (clip.width, clip.height)
        try:
            for frame in container.decode(stream):
                pts = _later(frame.pts, last, clip)
                if (frame.width, frame.height) != size:
                    raise InterLCMError(f"{clip.path}: frame {index} has another size than the first")
                if index >= start:
                    yield Frame(index, pts, to_rgb(frame, clip))
                index, last = index + 1, pts
        except av.FFmpegError as error:
            raise InterLCMError(
                f"{clip.path}: damaged at frame {index} ({error.strerror}); ffmpeg -i FILE NEW may mend it"
            ) from error


def _later(pts: int | None, last: int | None, clip: Clip) -> int:
    """A timestamp that is there and grows."""
    if last is None:
        return pts or 0
    if pts is None:
        return last + max(1, round(1 / (clip.rate * clip.time_base)))
    return max(pts, last + 1)


def to_rgb(frame: "av.VideoFrame", clip: Clip) -> UInt8[np.ndarray, "H W 3"]:
    """A decoded frame's pixels, upright."""
    if not frame.format.is_rgb:
        frame.colorspace = matrix_of(clip)
    rgb = frame.reformat(format="rgb24", interpolation=_SCALING, dst_color_range="JPEG")
    return np.ascontiguousarray(_upright(rgb.to_ndarray(), clip.matrix))


def from_rgb(pixels: UInt8[np.ndarray, "H W 3"], clip: Clip, pixel_format: str) -> "av.VideoFrame":
    """Pixels as a frame to encode, by the clip's matrix and range."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    frame.colorspace, frame.color_range = _RGB_MATRIX, FULL
    full = clip.colors.range == FULL
    return frame.reformat(
        format=pixel_format,
        interpolation=_SCALING,
        dst_colorspace=_SWSCALE[matrix_of(clip)],
        dst_color_range="JPEG" if full else "MPEG",
    )


def matrix_of(clip: Clip) -> int:
    """The matrix between RGB and luma and chroma; what isn't stated is as players take it."""
    if clip.colors.matrix in _SWSCALE:
        return clip.colors.matrix
    return BT709 if min(clip.width, clip.height) >= HD else BT601


# FFmpeg's two numberings of matrices: of frames, and of what `reformat` is asked for.
_SWSCALE = {BT709: 1, 4: 4, 5: 5, BT601: 5, 7: 7, 9: 9}


def _upright(stored: UInt8[np.ndarray, "h w 3"], matrix: tuple[int, int, int, int]) -> UInt8[np.ndarray, "H W 3"]:
    a, b, c, d = matrix
    on_its_side = a == 0
    image = stored.transpose(1, 0, 2) if on_its_side else stored
    across, down = (c, b) if on_its_side else (a, d)
    return image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]
