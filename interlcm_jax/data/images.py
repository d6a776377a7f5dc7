"""Face images in folders: checking and reading them."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from interlcm_jax.errors import InterLCMError
from interlcm_jax.imaging.io import read_image
from interlcm_jax.imaging.opening import open_file, open_image, pillow_without_limits

# Smaller faces hold too little to learn from.
MINIMUM_SIZE = 64


def part(files: list[Path], exclude_last: int | None = None, only_last: int | None = None) -> list[Path]:
    """All files, all but the last few, or the last few alone.

    Raises:
        InterLCMError: that would be none, or there aren't so many.
    """
    for option, count in (("--exclude-last", exclude_last), ("--only-last", only_last)):
        most = len(files) - (option == "--exclude-last")
        if count is not None and not 1 <= count <= most:
            raise InterLCMError(f"{option} is {count}, but of {len(files)} images it must be from 1 to {most}")
    if only_last is not None:
        return files[-only_last:]
    return files if exclude_last is None else files[:-exclude_last]


def read_face(path: Path, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Reads an aligned face as RGB, at the size asked for.

    Raises:
        InterLCMError: the file can't be read, isn't square, or is smaller than `MINIMUM_SIZE`.
    """
    pixels = read_image(path)
    height, width, _ = pixels.shape
    check_size(path, width, height)
    return fit(pixels, size)


def check_header(path: Path) -> tuple[int, int]:
    """Width and height of a face, without reading its pixels.

    Raises:
        InterLCMError: the file isn't an image, isn't square, or is smaller than `MINIMUM_SIZE`.
    """
    with open_file(path) as stream, pillow_without_limits():
        try:
            with open_image(stream) as image:
                width, height = image.size
        # Pillow's formats give up in many ways.
        except (Exception, Warning) as error:
            raise InterLCMError(f"{path}: can't be read as an image ({error})") from error
    check_size(path, width, height)
    return width, height


def check_size(path: Path, width: int, height: int) -> None:
    """Checks that pixels can be those of an aligned face.

    Raises:
        InterLCMError: they can't; the message names the file.
    """
    if width != height:
        raise InterLCMError(f"{path}: {width} x {height} pixels, but aligned faces are square")
    if width < MINIMUM_SIZE:
        raise InterLCMError(f"{path}: {width} x {height} pixels, but at least {MINIMUM_SIZE} are needed")


def fit(pixels: UInt8[np.ndarray, "S S 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    """A square image at another size (OpenCV's area interpolation); one of that size is kept."""
    if pixels.shape[:2] == (size, size):
        return pixels
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)
