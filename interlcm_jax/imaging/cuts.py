"""Where a video cuts from one scene to another."""

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

# A frame is looked at in a copy of this size.
SIDE = 24
# Levels of 255 by which a frame differs from the one before at a cut: at least, and in multiples of what the frames
# around it differ by, since a fast pan or a train passing by differs all the time.
LEAST, TIMES = 12.0, 3.0
AROUND = 4  # frames on both sides


def thumbnail(pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "SIDE SIDE 3"]:
    """What `change` compares of a frame."""
    return cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def change(before: UInt8[np.ndarray, "SIDE SIDE 3"], after: UInt8[np.ndarray, "SIDE SIDE 3"]) -> float:
    """Mean difference of two thumbnails in levels, where a change of light alone counts little."""
    gap = after.astype(np.float32) - before
    return float(np.abs(gap - gap.mean((0, 1))).mean())


def find_cuts(changes: Float[np.ndarray, " F"]) -> Bool[np.ndarray, " F"]:
    """Which frames are the first of a scene.

    Args:
        changes: of each frame from the one before; the first is 0.
    """
    cuts = np.zeros(len(changes), bool)
    for i in np.flatnonzero(changes >= LEAST):
        around = np.concatenate([changes[max(1, i - AROUND) : i], changes[i + 1 : i + 1 + AROUND]])
        usual = float(np.median(around)) if len(around) else 0.0
        cuts[i] = changes[i] >= TIMES * usual
    return cuts
