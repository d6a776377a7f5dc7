"""Gray and toned photos: what counts as one, plain gray, and keeping the colors of another image."""

import cv2
import numpy as np
from jaxtyping import UInt8

LUMA = np.array([0.2989, 0.5870, 0.1140])  # BT.601's to four digits, as in the release
# Looked at in a copy of so many pixels a side at most: noise and the specks of JPEG's colors average out.
LONGEST = 128
LEVELS = 24
# Variance in squared levels of 255, after the tone is taken off. Toned photos of all hues have up to this, noisy ones
# and poor JPEGs too; color photos of faces have more. Between the two, a photo's own colors do least harm.
VARIANCE = 50


def is_gray(pixels: UInt8[np.ndarray, "H W 3"]) -> bool:
    """Whether the colors of an image follow from its light and shade: a gray photo, or one toned in any hue.

    The release takes an image for gray where R - G, G - B and B - R vary by 10 at most (the mean of their variances).
    Here each one's mean at pixels of the same luma is taken off before, so that a tone may change from shadows to
    lights; all that the release takes for gray is gray here too.
    """
    factor = LONGEST / max(pixels.shape[:2])
    if factor < 1:
        size = tuple(max(1, round(side * factor)) for side in pixels.shape[1::-1])
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    colors = pixels.reshape(-1, 3).astype(float)
    luma = colors @ LUMA
    differences = colors - np.roll(colors, -1, axis=1)
    # As many pixels in each step of luma; between the steps' means, the tone runs straight.
    steps = np.array_split(np.argsort(luma, kind="stable"), min(LEVELS, len(luma)))
    at = [luma[step].mean() for step in steps]
    tones = [np.interp(luma, at, [difference[step].mean() for step in steps]) for difference in differences.T]
    return float((differences - np.stack(tones, axis=1)).var(axis=0).mean()) <= VARIANCE


def to_gray(pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """The image without colors, three equal channels; a tint goes too."""
    luma = np.rint(pixels @ LUMA).astype(np.uint8)
    return np.repeat(luma[..., None], 3, axis=-1)


def recolor(restored: UInt8[np.ndarray, "H W 3"], colors: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """The light and shade of one image with the colors of another; a plain gray one gives plain gray."""
    tint = colors - colors @ LUMA[:, None]
    return np.clip(np.rint(restored @ LUMA[:, None] + tint), 0, 255).astype(np.uint8)
