"""Image files with small damage that every viewer shows: what to read in their place, and what was wrong with them."""

import io
import struct
import zlib
from typing import NamedTuple

import numpy as np
from PIL import Image

JPEG_START, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
PNG_START = b"\x89PNG\r\n\x1a\n"
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


def repair(data: bytes) -> Repaired | None:
    """Mends a file whose picture is whole though its wrapping is damaged; None where more than that is lost.

    - JPEG: bytes before its start; no end marker, or a few bytes less, so that no more than its last blocks are lost.
    - PNG: a wrong checksum of a chunk that carries no pixels.

    Args:
        data: the file, which couldn't be read as it is.
    """
    if data.startswith(PNG_START):
        return _without_broken_chunks(data)
    start = data[:_BEFORE].find(JPEG_START)
    if start < 0:
        return None
    problems = [f"{start} bytes stand before the picture"] if start else []
    data = data[start:]
    if not data.rstrip(b"\0").endswith(JPEG_END):
        data = data + JPEG_END
        problems.append("the end is missing")
        if not _is_whole(data):
            return None
    return Repaired(data, " and ".join(problems)) if problems else None


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


def _without_broken_chunks(data: bytes) -> Repaired | None:
    """A PNG without the ancillary chunks whose checksum is wrong."""
    kept, dropped, place = [PNG_START], [], len(PNG_START)
    while place + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        chunk = data[place : place + 12 + length]
        place += 12 + length
        # A chunk whose name begins with a small letter may be ignored, as the format has it.
        if name[:1].islower() and zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
            dropped.append(name.decode("ascii", "replace"))
        else:
            kept.append(chunk)
    if not dropped:
        return None
    return Repaired(b"".join(kept), f"{', '.join(dropped)} is damaged and left out; it carries no pixels")
