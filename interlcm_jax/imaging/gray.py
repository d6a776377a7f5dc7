"""Near-gray photos: what counts as one, plain gray, and keeping the colors of another image."""

import cv2
import numpy as np
from jaxtyping import UInt8

# The release's, through facexlib: variance in squared levels of 0 to 255, and BT.601's weights to four digits.
GRAY_VARIANCE = 10
LUMA = np.array([0.2989, 0.5870, 0.1140])


def is_gray(pixels: UInt8[np.ndarray, "H W 3"]) -> bool:
    """Whether R - G, G - B and B - R vary by 10 at most, the mean of their three variances over the image.

    So one even tint, sepia for instance, is near-gray as well.
    """
    red, green, blue = cv2.split(pixels)
    pairs = ((red, green), (green, blue), (blue, red))
    deviations = [cv2.meanStdDev(cv2.subtract(a, b, dtype=cv2.CV_16S))[1].item() for a, b in pairs]
    return float(np.mean(np.square(deviations))) <= GRAY_VARIANCE


def to_gray(pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """The image without colors, three equal channels; a tint goes too."""
    luma = np.rint(pixels @ LUMA).astype(np.uint8)
    return np.repeat(luma[..., None], 3, axis=-1)


def recolor(restored: UInt8[np.ndarray, "H W 3"], colors: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """The light and shade of one image with the colors of another; a plain gray one gives plain gray."""
    tint = colors - colors @ LUMA[:, None]
    return np.clip(np.rint(restored @ LUMA[:, None] + tint), 0, 255).astype(np.uint8)
