"""How much detail an aligned face has, against what a model of its size can draw."""

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

# Of the aligned face: brows to chin, cheek to cheek.
ROWS, COLUMNS = (0.19, 0.875), (0.19, 0.81)
# Bands between two Gaussian blurs, in pixels: details, and the shapes that they sit on.
FINE, COARSE = (0.7, 1.4), (1.7, 6.8)
# Noise lies on every pixel, details on few: what the median pixel has is taken for noise, and so much of it off the
# details' energy, since noise that went through JPEG has longer tails than Gaussian noise.
TAILS = 1.5
# An enlarged pixel has edges of its own. Blurring by so much of its width leaves what a photo of its size can show.
PIXEL = 0.4
EVEN = 4.0  # squared levels of 255: shapes of less variance are a blur or a wall, whose details are noise
GAUSSIAN_MEDIAN = 0.6745  # of the absolute value, at a deviation of 1


def detail(face: UInt8[np.ndarray, "S S 3"], enlarged: float = 1.0) -> float:
    """The strength of a face's details over that of its shapes, without noise.

    Small faces that were enlarged have little of it as blurred ones have, so it tells in one number what restoration
    can add: sharp portraits of 256 pixels have 0.25 and more, blurred by 1.7 pixels (Gaussian) or enlarged from 95
    pixels about 0.18, blurred by 3 about 0.1. Light, contrast and complexion hardly change it.

    Args:
        face: RGB, at the size that the model takes, aligned.
        enlarged: pixels of the face to a pixel of the photo it was cut from, along one side.
    """
    size = len(face)
    rows, columns = (slice(round(a * size), round(b * size)) for a, b in (ROWS, COLUMNS))
    luma = cv2.cvtColor(face[rows, columns].astype(np.float32), cv2.COLOR_RGB2GRAY)
    if enlarged > 1:
        luma = cv2.GaussianBlur(luma, (0, 0), PIXEL * (enlarged**2 - 1) ** 0.5)
    fine = _energy(_band(luma, *FINE), TAILS)
    coarse = _energy(_band(luma, *COARSE), 1.0)
    return float(np.sqrt(fine / max(coarse, EVEN)))


def _band(luma: Float32[np.ndarray, "h w"], narrow: float, wide: float) -> Float32[np.ndarray, "h w"]:
    return cv2.GaussianBlur(luma, (0, 0), narrow) - cv2.GaussianBlur(luma, (0, 0), wide)


def _energy(band: Float32[np.ndarray, "h w"], tails: float) -> float:
    """The band's variance less the noise's."""
    noise = float(np.median(np.abs(band))) / GAUSSIAN_MEDIAN
    return max(float(band.var()) - tails * noise**2, 0.0)
