"""Image files opened: which files are, of which formats, and which of their pictures."""

import contextlib
import io
import re
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.paths import in_bucket

# Pillow's, which knows more; some of those start other programs. What it imports at once comes first, and phones' HEIF,
# which it doesn't read, is named beside them.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "WEBP", "TIFF", "AVIF", "JPEG2000")
HEIF = "HEIF"
# Cameras reach 200 million; a file of a few bytes may claim any number.
MAX_PIXELS = 250_000_000
# At most so many pixels come of one byte: a header that claims more lies. The other formats may say "all white" in a
# few bytes.
PIXELS_PER_BYTE = {"JPEG": 1024, "MPO": 1024, "PNG": 8300, "PPM": 8}
# Of a profile or text in a PNG, unpacked: as much as a JPEG's profile may have.
_TEXT_CHUNK = 1 << 24
# The head of a box that describes an item of a HEIF: its length, name, version 2 or 3, flags, and numbers.
_HEIF_ITEM = re.compile(rb"(.{4})infe(?:\x02.{7}|\x03.{9})", re.DOTALL)
# Of a TIFF: what says that a picture is a reduced copy of another one.
_SUBFILE_TYPE, _REDUCED, _MOST_PAGES = 254, 1, 16


def open_file(path: Path) -> io.BufferedIOBase:
    """Opens a file of bytes; a pipe or device, which may never end, isn't one.

    Raises:
        InterLCMError: it can't be opened, or isn't a file.
    """
    try:
        if in_bucket(path):
            # Whole: another request costs more than the rest of a photo.
            return io.BytesIO(path.read_bytes())
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            raise InterLCMError(f"{path}: a folder, not an image")
        if not stat.S_ISREG(kind):
            raise InterLCMError(f"{path}: a pipe or device, not a file")
        return path.open("rb")
    except FileNotFoundError:
        raise InterLCMError(f"{path}: no such file") from None
    except OSError as error:
        raise InterLCMError(f"{path}: can't be opened ({error.strerror})") from error


def open_image(stream: io.BufferedIOBase, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An image of which the header alone is read (but a HEIF is decoded); a TIFF's first page that is no reduced copy.

    Raises:
        UnidentifiedImageError: it isn't of one of `FORMATS`, nor HEIF.
        ValueError: it has, or claims to have, too many pixels.
    """
    start, size = stream.read(64), stream.seek(0, io.SEEK_END)
    stream.seek(0)
    # AVIF, of the same family, says so somewhere in its first box.
    if start[4:8] == b"ftyp" and not re.search(b"avif|avis", start[8 : int.from_bytes(start[:4])]):
        return _open_heif(stream, max_pixels)
    image = Image.open(stream, formats=FORMATS)
    if image.format == "TIFF":
        _to_full_page(image)
    _check_pixels(image.size, max_pixels)
    width, height = image.size
    kind = "JPEG" if image.info.get("compression") == "jpeg" else image.format
    if width * height > size * PIXELS_PER_BYTE.get(kind, max_pixels):
        raise ValueError(f"the header claims {width} x {height} pixels, which {size} bytes can't hold")
    return image


def _open_heif(stream: io.BufferedIOBase, max_pixels: int) -> Image.Image:
    """Decodes phones' HEIC; it comes upright, whatever its EXIF says."""
    # Imported here, as few files need it.
    import pi_heif

    if not pi_heif.is_supported(stream):
        raise UnidentifiedImageError
    stream.seek(0)
    _check_items(stream.read())
    stream.seek(0)
    heif = pi_heif.open_heif(stream)
    _check_pixels(heif.size, max_pixels)
    image = heif.to_pillow()
    image.format = HEIF
    return image


def _check_items(data: bytes) -> None:
    """pi-heif 1.4 ends the whole program where an item's kind isn't text."""
    for head in _HEIF_ITEM.finditer(data):
        kind = data[head.end() : head.start() + int.from_bytes(head[1])]
        if not kind.isascii():
            raise ValueError(f"an item of the unknown kind {kind[:4]!r}")


def _check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ValueError(f"{width} x {height} pixels; up to {max_pixels // 10**6} million are read")


def _to_full_page(image: Image.Image) -> None:
    """Turns to the first page of a TIFF that is no reduced copy of another, as cameras put one in front."""
    for page in range(min(image.n_frames, _MOST_PAGES)) if _is_reduced(image) else ():
        image.seek(page)
        if not _is_reduced(image):
            return
    # Such a file's full picture is raw, which needs a program of its own.
    image.seek(0)


def _is_reduced(image: Image.Image) -> bool:
    kind = image.tag_v2.get(_SUBFILE_TYPE, 0)
    return isinstance(kind, int) and bool(kind & _REDUCED)


_limits_lock = threading.Lock()
_limits_readers = 0
_limits_of_pillow: tuple[int | None, int] = (None, 0)


@contextlib.contextmanager
def pillow_without_limits() -> Iterator[None]:
    """Lifts Pillow's limits while any thread reads.

    It warns of real photos of 90 million pixels and refuses 180, and refuses a PNG with a profile or text over 1 MB.
    """
    global _limits_readers, _limits_of_pillow
    with _limits_lock:
        if not _limits_readers:
            _limits_of_pillow = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
            Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = None, _TEXT_CHUNK
        _limits_readers += 1
    try:
        yield
    finally:
        with _limits_lock:
            _limits_readers -= 1
            if not _limits_readers:
                Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = _limits_of_pillow
