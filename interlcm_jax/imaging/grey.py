"""Near-grey photos: what counts as one, plain grey, and keeping the colours of another image."""

import cv2
import numpy as np
from jaxtyping import UInt8

# The release's, through facexlib: variance in squared levels of 0 to 255, and BT.601's weights to four digits.
GREY_VARIANCE = 10
LUMA = np.array([0.2989, 0.5870, 0.1140])


def is_grey(pixels: UInt8[np.ndarray, "H W 3"]) -> bool:
    """Whether R - G, G - B and B - R vary by 10 at most, the mean of their three variances over the image.

    So one even tint, sepia for instance, is near-grey as well.
    """
    red, green, blue = cv2.split(pixels)
    pairs = ((red, green), (green, blue), (blue, red))
    deviations = [cv2.meanStdDev(cv2.subtract(a, b, dtype=cv2.CV_16S))[1].item() for a, b in pairs]
    return float(np.mean(np.square(deviations))) <= GREY_VARIANCE


def to_grey(pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """The image without colours, three equal channels; a tint goes too."""
    luma = np.rint(pixels @ LUMA).astype(np.uint8)
    return np.repeat(luma[..., None], 3, axis=-1)


def recolour(restored: UInt8[np.ndarray, "H W 3"], colours: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """The light and shade of one image with the colours of another; a plain grey one gives plain grey."""
    tint = colours - colours @ LUMA[:, None]
    return np.clip(np.rint(restored @ LUMA[:, None] + tint), 0, 255).astype(np.uint8)
