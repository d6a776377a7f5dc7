"""Tiny videos for tests, and what is in a video file."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

WIDTH, HEIGHT, RATE = 96, 64, 25


def pictures(count: int, width: int = WIDTH, height: int = HEIGHT) -> list[np.ndarray]:
    """Smooth colors that move; each frame is different."""
    y, x = np.mgrid[:height, :width] / 40
    phases = [np.stack([x + i / 9, y - i / 7, x + y], axis=-1) for i in range(count)]
    return [np.rint(128 + 90 * np.sin(phase)).astype(np.uint8) for phase in phases]


def write_clip(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    pts: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 1000),
    sound: bool = False,
    rotation: int = 0,
    colors: tuple[int, int, int, int] | None = None,
    aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
) -> Path:
    """Writes a video, nearly without loss.

    Args:
        path: the file; its suffix is the container's.
        frames: RGB.
        codec: FFmpeg's encoder.
        pix_fmt: FFmpeg's pixel format.
        pts: when each is shown; None is a constant rate.
        time_base: of `pts`.
        sound: add a tone as long as the video.
        rotation: degrees in the display matrix.
        colors: FFmpeg's matrix, range, primaries and transfer function.
        aspect: of a pixel.
        options: the encoder's.
        container: the muxer's options.
    """
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=RATE)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.options = options or {"libx264": {"crf": "4", "bf": "2"}, "libvpx-vp9": {"crf": "4", "b": "0"}}.get(
            codec, {}
        )
        if pts:
            stream.codec_context.time_base = time_base
        if colors:
            context = stream.codec_context
            context.colorspace, context.color_range, context.color_primaries, context.color_trc = colors
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(rotation)
        tone = file.add_stream("aac", rate=48000) if sound else None
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if pts:
                frame.pts, frame.time_base = pts[i], time_base
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        if tone:
            for i in range(len(frames) * 48000 // RATE // 1024):
                wave = np.sin(np.arange(i * 1024, (i + 1) * 1024) / 20).astype(np.float32)
                part = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
                part.sample_rate, part.pts = 48000, i * 1024
                file.mux(tone.encode(part))
            file.mux(tone.encode(None))
    return path


class Content(NamedTuple):
    """What players see of a file.

    Attributes:
        times: seconds at which frames are shown, in order.
        frames: RGB, as FFmpeg converts them by the file's own tags; not turned.
        packets: of other streams, by their kind: time in seconds and bytes.
    """

    times: list[Fraction]
    frames: list[np.ndarray]
    packets: dict[str, list[tuple[Fraction, bytes]]]


def content(path: Path) -> Content:
    """Reads a file through."""
    times, frames, packets = [], [], {}
    with av.open(str(path)) as file:
        for packet in file.demux():
            if packet.stream.type == "video":
                for frame in packet.decode():
                    times.append(frame.pts * frame.time_base)
                    frames.append(frame.to_ndarray(format="rgb24"))
            elif packet.size:
                packets.setdefault(packet.stream.type, []).append((packet.pts * packet.time_base, bytes(packet)))
    return Content(times, frames, packets)
