"""Image files with small damage that every viewer shows: what to read in their place, and what was wrong with them."""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

JPEG_START, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
PNG_START = b"\x89PNG\r\n\x1a\n"
# Of a PNG: what makes up the picture, and where texts are.
_PNG_PICTURE, _PNG_TEXTS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}, {b"tEXt", b"zTXt", b"iTXt"}
# Of a TIFF: the order of bytes, as `struct` calls it, and the tags that don't say how pixels are stored.
_TIFF_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_TIFF_ABOUT = {269, 270, 271, 272, 282, 283, 285, 296, 297, 305, 306, 315, 316, *range(700, 65_536)}
# Bytes that some cameras and downloads put before the picture.
_BEFORE = 65_536
# Pixels of a JPEG's last blocks that may be lost with its last bytes.
_MOST_LOST = 600
# Bytes that a decoder takes for picture where it still waits for some, and leaves where the picture is done.
_NOISE = np.random.default_rng(0).integers(0, 255, 4096, np.uint8).tobytes()


class Repaired(NamedTuple):
    """What can be read.

    Attributes:
        data: the file's bytes, mended.
        problem: what was wrong, in words.
    """

    data: bytes
    problem: str


def repairs(stream: io.BufferedIOBase) -> Iterator[Repaired]:
    """Ways to mend a file whose picture is whole though its wrapping is damaged, the smallest first.

    - JPEG: bytes before its start; no end marker, or a few bytes less, so that no more than its last blocks are lost.
    - PNG: chunks that carry no pixels, of a wrong checksum or such as can't be read.
    - TIFF: tags that don't say how pixels are stored.

    Args:
        stream: the file, which couldn't be read as it is; other formats' are looked at no further than their start.
    """
    stream.seek(0)
    start = stream.read(_BEFORE)
    if start.startswith(PNG_START):
        yield from _without_chunks(start + stream.read())
    elif order := _TIFF_ORDERS.get(start[:4]):
        yield from _without_tags(start + stream.read(), order)
    elif (before := start.find(JPEG_START)) >= 0:
        yield from _completed_jpeg(start[before:] + stream.read(), before)


def _completed_jpeg(data: bytes, start: int) -> Iterator[Repaired]:
    problems = [f"{start} bytes stand before the picture"] if start else []
    if not data.rstrip(b"\0").endswith(JPEG_END):
        # With more behind it, it is a preview within a file of another format.
        if start and _decoded(data) is not None:
            return
        data = data + JPEG_END
        problems.append("the end is missing")
        if not _is_whole(data):
            return
    if problems:
        yield Repaired(data, " and ".join(problems))


def _is_whole(data: bytes) -> bool:
    """Whether no more than the last blocks of a JPEG are lost: those that noise put before its end would fill."""
    picture, filled = (_decoded(each) for each in (data, data[: -len(JPEG_END)] + _NOISE + JPEG_END))
    if picture is None or filled is None or picture.shape != filled.shape:
        return False
    return int((picture != filled).reshape(*picture.shape[:2], -1).any(-1).sum()) <= _MOST_LOST


def _decoded(data: bytes) -> np.ndarray | None:
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return np.asarray(image)
    except (OSError, ValueError, SyntaxError):
        return None


def _without_chunks(data: bytes) -> Iterator[Repaired]:
    """A PNG without chunks beside the picture: first those of a wrong checksum, then texts too, then all."""
    chunks = list(_chunks(data))
    wrong = [zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:]) for _, chunk in chunks]
    texts = [is_wrong or name in _PNG_TEXTS for is_wrong, (name, _) in zip(wrong, chunks, strict=True)]
    for unwanted in (wrong, texts, [True] * len(chunks)):
        left_out = [drop and name not in _PNG_PICTURE for drop, (name, _) in zip(unwanted, chunks, strict=True)]
        dropped = {name.decode() for drop, (name, _) in zip(left_out, chunks, strict=True) if drop}
        kept = [chunk for drop, (_, chunk) in zip(left_out, chunks, strict=True) if not drop]
        if dropped:
            problem = f"{', '.join(sorted(dropped))}: damaged and left out; no pixels are in them"
            yield Repaired(PNG_START + b"".join(kept), problem)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = len(PNG_START)
    while place + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        # What follows isn't a PNG any more.
        if not (name.isascii() and name.isalpha()):
            return
        yield name, data[place : place + 12 + length]
        place += 12 + length


def _without_tags(data: bytes, order: str) -> Iterator[Repaired]:
    """A TIFF without tags about its picture: it may stay turned, if need be."""
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    entries = range(start + 2, start + 2 + 12 * count, 12)
    for tags in (_TIFF_ABOUT, {*_TIFF_ABOUT, ExifTags.Base.Orientation}):
        mended = bytearray(data)
        for entry in entries:
            if struct.unpack_from(f"{order}H", data, entry)[0] in tags:
                # A type that doesn't exist: readers pass the entry over.
                struct.pack_into(f"{order}H", mended, entry + 2, 0)
        yield Repaired(bytes(mended), "profile, EXIF and texts are damaged and left out; no pixels are in them")
