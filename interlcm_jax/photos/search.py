"""Finds the faces of a photo that may be restored; a small photo is enlarged first."""

import numpy as np
from jaxtyping import UInt8

from interlcm_jax.faces.detect import Detector, Face
from interlcm_jax.faces.paste import upscale_photo
from interlcm_jax.faces.select import FaceChoice, find_candidates

# A photo that is enlarged so that its shorter side is as long as a face is not made longer than this.
MAX_ENLARGED = 4096


def search(
    pixels: UInt8[np.ndarray, "H W 3"], size: int, choice: FaceChoice, detector: Detector
) -> tuple[UInt8[np.ndarray, "h w 3"], float, list[Face]]:
    """The faces that `choice.faces` chooses from.

    Args:
        pixels: the photo, RGB.
        size: of the faces that the model takes, pixels.
        choice: size, number and score of the faces.
        detector: finds them.

    Returns:
        The photo, enlarged if its shorter side is shorter than `size`; how many times as large it is; and its faces,
        the best first, in its pixels.
    """
    factor = enlargement(*pixels.shape[:2], size)
    pixels = upscale_photo(pixels, factor)
    return pixels, factor, find_candidates(pixels, detector, choice, factor)


def enlargement(height: int, width: int, size: int) -> float:
    """How much a photo is enlarged before anything else: its shorter side to a face's size, as in the release."""
    return max(1.0, min(size / min(height, width), MAX_ENLARGED / max(height, width)))
