"""Image files as users have them, to uint8 RGB and back."""

import contextlib
import dataclasses
import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from interlcm_jax.errors import InterLCMError, printable
from interlcm_jax.files.atomic import whole_file
from interlcm_jax.files.paths import to_path
from interlcm_jax.imaging.metadata import Metadata, read_metadata, save_options, to_srgb
from interlcm_jax.imaging.opening import FORMATS, HEIF, MAX_PIXELS, open_file, open_image, pillow_without_limits
from interlcm_jax.imaging.repair import repairs

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
GRAY_MODES = ("1", "L", "LA", "La")
ENCODING: dict[str, dict[str, Any]] = {
    # 4:4:4: color at half the resolution would soften what was just restored.
    ".jpg": {"quality": 95, "subsampling": 0},
    ".jpeg": {"quality": 95, "subsampling": 0},
    # Level 6, the default, takes three times as long (10 s for 24 million pixels) for 2 % less.
    ".png": {"compress_level": 3},
    # Not compressed: Pillow can't store EXIF in a compressed TIFF.
    ".tif": {},
    ".tiff": {},
    # exact: keeps the colors of transparent pixels. Method 4, the default, takes six times as long for no less.
    ".webp": {"quality": 95, "exact": True, "method": 2},
    ".bmp": {},
}
WITH_ALPHA = (".png", ".tif", ".tiff", ".webp")


@dataclasses.dataclass(frozen=True, eq=False)
class Photo:
    """An image file's content.

    Attributes:
        pixels: upright RGB, in the file's own RGB profile (`metadata.icc`) or in sRGB.
        alpha: opacity, 0 to 255, or None where the file has none; the colors aren't multiplied by it.
        gray: the file holds one channel; the three of `pixels` are equal, but for rounding where it had a profile.
        metadata: what a restored copy carries on.
    """

    pixels: UInt8[np.ndarray, "H W 3"]
    alpha: UInt8[np.ndarray, "H W"] | None = None
    gray: bool = False
    metadata: Metadata = dataclasses.field(default_factory=Metadata)


def read_photo(path: Path, max_pixels: int = MAX_PIXELS) -> Photo:
    """Reads an image file of one of `opening.FORMATS` or HEIF, the first picture of several that is no reduced copy.

    16 bits a channel become 8. CMYK becomes sRGB by its profile if it has one. Corrupt EXIF and profiles are ignored;
    of some, Pillow warns. A file whose picture is whole though its wrapping is damaged is read, with a warning in the
    log (see `repair.repairs`).

    Raises:
        InterLCMError: the file can't be opened, isn't an image, isn't whole, or has more than `max_pixels` pixels.
    """
    path = to_path(path)
    with open_file(path) as stream, pillow_without_limits():
        try:
            return _decode(stream, max_pixels)
        # Pillow's decoders give up in many ways; warnings are raised where a program turned them into errors.
        except (Exception, Warning) as error:
            if photo := _decode_repaired(path, stream, max_pixels):
                return photo
            if isinstance(error, UnidentifiedImageError):
                names = ", ".join((*FORMATS, HEIF))
                gist = f"of no format that is read: {names}" if path.stat().st_size else "the file is empty"
                raise InterLCMError(f"{path}: not an image ({gist})") from None
            raise InterLCMError(f"{path}: can't be read as an image ({error})") from error


def _decode_repaired(path: Path, stream: io.BufferedIOBase, max_pixels: int) -> Photo | None:
    """The photo in a file with small damage; None where there is none, or more is lost."""
    with contextlib.suppress(Exception):
        for found in repairs(stream):
            with contextlib.suppress(Exception):
                photo = _decode(io.BytesIO(found.data), max_pixels)
                logging.getLogger(__name__).warning("%s: %s", printable(str(path)), found.problem)
                return photo
    return None


def _decode(stream: io.BufferedIOBase, max_pixels: int) -> Photo:
    with open_image(stream, max_pixels) as image:
        image.load()
        # Broken EXIF, which may fail in any way, is as good as none.
        with contextlib.suppress(Exception):
            ImageOps.exif_transpose(image, in_place=True)
        gray = image.mode in GRAY_MODES or image.mode.startswith("I;16")
        opaque, alpha = _split_alpha(_eight_bits(image))
        rgb, icc = to_srgb(opaque, image.info.get("icc_profile"))
        return Photo(np.asarray(rgb), alpha, gray, read_metadata(image, icc))


def _eight_bits(image: Image.Image) -> Image.Image:
    # Pillow's own conversion of gray pixels wider than 8 bits would cut them off at 255; of colors it keeps the high
    # byte when it loads them.
    if image.mode.startswith("I;16"):
        return Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("32 bits a pixel; 8 and 16 are read")
    return image


def _split_alpha(image: Image.Image) -> tuple[Image.Image, UInt8[np.ndarray, "H W"] | None]:
    """The image without transparency in one of the modes L, RGB and CMYK if it can be, and its opacity."""
    alpha = None
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        alpha = np.asarray(rgba.getchannel("A"))
        image = rgba.convert("L") if image.mode in GRAY_MODES else rgba.convert("RGB")
    return (image.convert("L") if image.mode == "1" else image), alpha


def write_photo(path: Path, pixels: UInt8[np.ndarray, "H W 3"], like: Photo | None = None) -> None:
    """Writes an image in the format of the name's suffix; the file appears whole or not at all, its folder too.

    JPEG and WebP are written at quality 95, JPEG with colors at full resolution.

    Args:
        path: one of `SUFFIXES`, in either case.
        pixels: RGB.
        like: the photo they were made from: its profile, EXIF and other metadata go into the file, and its opacity,
            resized to that of `pixels`; JPEG and BMP have none, and what is transparent is laid over white.

    Raises:
        InterLCMError: the suffix stands for no format, the image is too large for it, or the file can't be written.
    """
    path = to_path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InterLCMError(f"{path}: no image format is called {suffix!r}; choose one of {', '.join(SUFFIXES)}")
    encoded = io.BytesIO()
    try:
        image = _with_alpha(Image.fromarray(pixels), like, suffix)
        options = ENCODING[suffix] | save_options(like.metadata if like else Metadata(), suffix)
        image.save(encoded, Image.registered_extensions()[suffix], **options)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            temporary.write_bytes(encoded.getvalue())
    except (OSError, ValueError) as error:
        raise InterLCMError(f"{path}: can't be written ({getattr(error, 'strerror', None) or error})") from error


def _with_alpha(image: Image.Image, like: Photo | None, suffix: str) -> Image.Image:
    if like is None or like.alpha is None:
        return image
    alpha = Image.fromarray(like.alpha)
    if alpha.size != image.size:
        alpha = alpha.resize(image.size, Image.Resampling.BICUBIC)
    if suffix in WITH_ALPHA:
        image.putalpha(alpha)
        return image
    return Image.composite(image, Image.new("RGB", image.size, "white"), alpha)


def read_image(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """The pixels of `read_photo` alone."""
    return read_photo(path).pixels


def write_image(path: Path, pixels: UInt8[np.ndarray, "H W 3"]) -> None:
    """`write_photo` of pixels that come from no file."""
    write_photo(path, pixels)


def fit_square(pixels: UInt8[np.ndarray, "H W 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Resizes an aligned face to the size the model takes (bilinear, antialiased); a face of that size is kept."""
    if pixels.shape[:2] == (size, size):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR))
