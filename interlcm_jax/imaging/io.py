"""Image files to uint8 RGB arrays and back."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from interlcm_jax.atomic import whole_file
from interlcm_jax.errors import InterLCMError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def read_image(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """Reads an image upright (EXIF orientation applied) as RGB; transparency is dropped.

    Raises:
        InterLCMError: the file can't be opened, isn't an image, or isn't whole.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return _rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise InterLCMError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise InterLCMError(f"{path}: not an image") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InterLCMError(f"{path}: can't be read as an image ({error})") from error


def _rgb(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    # Pillow's own conversion of grey pixels wider than 8 bits would cut them off at 255.
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError("32 bits a pixel; 8 and 16 are read")
    return np.asarray(image.convert("RGB"))


def write_image(path: Path, pixels: UInt8[np.ndarray, "H W 3"]) -> None:
    """Writes an image in the format of the name's suffix; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        Image.fromarray(pixels).save(temporary)


def fit_square(pixels: UInt8[np.ndarray, "H W 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Resizes an aligned face to the size the model takes (bilinear, antialiased); a face of that size is kept."""
    if pixels.shape[:2] == (size, size):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR))
