"""Encoded segments joined into the result, with sound, subtitles, chapters and tags of the clip as they are."""

import contextlib
import heapq
import logging
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.atomic import whole_file
from interlcm_jax.photos.video.clip import Clip, open_container
from interlcm_jax.photos.video.encode import TAGS, Encoding, Packets, set_up
from interlcm_jax.photos.video.pyav import av

_log = logging.getLogger(__name__)
FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
# Same packets, same file: without random numbers and the library's version.
_OPTIONS = {"fflags": "+bitexact"}
_COPIED = ("audio", "subtitle")
# Tags that tell how the clip was stored.
_DROPPED = {"encoder", "major_brand", "minor_version", "compatible_brands", "duration", "rotate"}


def join(clip: Clip, target: Path, encoding: Encoding, size: tuple[int, int], segments: Sequence[Path]) -> None:
    """Writes the result, which appears whole or not at all.

    Args:
        clip: what was restored.
        target: the result.
        encoding: the one that the segments were encoded with.
        size: width and height of the result.
        segments: files that `Packets.write` wrote, in order.

    Raises:
        InterLCMError: the result's container doesn't take what the clip holds, or the file can't be written.
    """
    options = _OPTIONS | ({"movflags": "+faststart"} if target.suffix in (".mp4", ".mov") else {})
    try:
        with (
            open_container(clip.path) as source,
            whole_file(target) as temporary,
            av.open(str(temporary), "w", format=FORMATS[target.suffix], options=options) as result,
        ):
            _write(clip, source, result, encoding, size, segments, target)
    except (av.FFmpegError, OSError) as error:
        raise InterLCMError(f"{target}: can't be written ({error.strerror or error})") from error


def _write(
    clip: Clip,
    source: "av.container.InputContainer",
    result: "av.container.OutputContainer",
    encoding: Encoding,
    size: tuple[int, int],
    segments: Sequence[Path],
    target: Path,
) -> None:
    video = result.add_stream(encoding.encoder, rate=clip.rate, time_base=clip.time_base)
    set_up(video.codec_context, clip, encoding, size)
    if encoding.encoder in TAGS and target.suffix in (".mp4", ".mov"):
        video.codec_context.codec_tag = TAGS[encoding.encoder]
    original = source.streams[clip.stream]
    video.metadata.update(_tags(original.metadata))
    copies = dict(_copies(clip, source, result))
    result.metadata.update(_tags(source.metadata))
    result.set_chapters(source.chapters())
    result.start_encoding()
    parts = [_video_packets(clip, video, segments, original)]
    if copies:
        parts.append(_copied_packets(source, copies))
    for _, _, packet in heapq.merge(*parts, key=lambda entry: entry[:2]):
        result.mux(packet)


def _copies(
    clip: Clip, source: "av.container.InputContainer", result: "av.container.OutputContainer"
) -> Iterator[tuple[int, "av.stream.Stream"]]:
    """Streams of the result that are copied, by their index in the clip; says which aren't."""
    for stream in source.streams:
        if stream.index == clip.stream:
            continue
        if stream.type == "attachment" and result.format.name.startswith("matroska"):
            result.add_attachment(stream.name, stream.mimetype, stream.data)
            continue
        if stream.type in _COPIED:
            with contextlib.suppress(ValueError, av.FFmpegError):
                copy = result.add_stream_from_template(stream, opaque=True)
                copy.metadata.update(_tags(stream.metadata))
                copy.disposition = stream.disposition
                yield stream.index, copy
                continue
        _log.warning("%s: stream %d (%s) isn't copied to the result", clip.path, stream.index, stream.type)


def _tags(metadata: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in metadata.items() if name.lower() not in _DROPPED}


def _copied_packets(
    source: "av.container.InputContainer", copies: dict[int, "av.stream.Stream"]
) -> Iterator[tuple[Fraction, int, "av.Packet"]]:
    """Time, place in the order at the same time, and packet; by time for each stream."""
    last: dict[int, Fraction] = {}
    latest = Fraction(-(10**9))
    for packet in source.demux([source.streams[index] for index in copies]):
        if packet.size == 0 and packet.dts is None:
            continue
        index = packet.stream_index
        ticks = packet.dts if packet.dts is not None else packet.pts
        latest = max(latest, last.get(index, latest) if ticks is None else ticks * packet.time_base)
        last[index] = latest
        packet.stream = copies[index]
        yield latest, 1, packet


def _video_packets(
    clip: Clip, stream: "av.VideoStream", segments: Sequence[Path], original: "av.VideoStream"
) -> Iterator[tuple[Fraction, int, "av.Packet"]]:
    every = [_times(path) for path in segments]
    pts = np.concatenate(every)
    times = decoding_times(pts)
    shown = np.sort(pts)
    ends = np.append(shown[1:], shown[-1] + _last_duration(clip, shown, original))
    durations = dict(zip(shown.tolist(), (ends - shown).tolist(), strict=True))
    number = 0
    for path in segments:
        packets = Packets.read(path)
        starts = np.cumsum(packets.sizes) - packets.sizes
        for start, length, when, key in zip(starts, packets.sizes, packets.pts.tolist(), packets.keys, strict=True):
            packet = av.Packet(packets.data[start : start + length].tobytes())
            packet.stream, packet.time_base = stream, clip.time_base
            packet.pts, packet.dts, packet.duration = when, int(times[number]), durations[when]
            packet.is_keyframe = bool(key)
            yield times[number].item() * clip.time_base, 0, packet
            number += 1


def _times(path: Path) -> np.ndarray:
    with np.load(path) as arrays:
        return arrays["pts"]


def _last_duration(clip: Clip, shown: np.ndarray, original: "av.VideoStream") -> int:
    """How long the last frame is shown: to the stream's end, or as long as the one before."""
    usual = shown[-1] - shown[-2] if len(shown) > 1 else round(1 / (clip.rate * clip.time_base))
    if original.duration and original.start_time is not None:
        left = original.start_time + original.duration - shown[-1]
        if 0 < left < 10 * max(usual, 1):
            return int(left)
    return max(1, int(usual))


def decoding_times(pts: Int64[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    """When each packet is decoded: growing, and never after it is shown.

    Args:
        pts: when each is shown, in the order they are decoded; no two the same.
    """
    shown = np.sort(pts)
    rank = np.searchsorted(shown, pts)
    delay = int(max(0, (np.arange(len(pts)) - rank).max()))
    step = max(1, int(np.median(np.diff(shown)))) if len(pts) > 1 else 1
    before = shown[0] - step * np.arange(delay, 0, -1)
    return np.concatenate([before, shown])[: len(pts)]
