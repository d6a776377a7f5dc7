"""Small warps and crops of aligned faces, so that few of them go a longer way in training."""

import dataclasses

import cv2
import numpy as np
from jaxtyping import Float64, UInt8

from interlcm_jax.errors import InterLCMError


@dataclasses.dataclass(frozen=True)
class WarpConfig:
    """Ranges of a similarity transform, each uniform and to both sides; the default is none.

    Attributes:
        turn: degrees.
        scale: share of the size by which a face grows or shrinks.
        shift: share of the size by which it moves, along each axis.

    Raises:
        InterLCMError: a field is out of range; the message names it.
    """

    turn: float = 0.0
    scale: float = 0.0
    shift: float = 0.0

    def __post_init__(self):
        for name, below in (("turn", 180), ("scale", 1), ("shift", 1)):
            if not 0 <= getattr(self, name) < below:
                raise InterLCMError(f"data.warp.{name} is {getattr(self, name)}, but must be from 0 to below {below}")

    @property
    def any(self) -> bool:
        """Whether anything is warped."""
        return self.turn > 0 or self.scale > 0 or self.shift > 0


def draw_warp(config: WarpConfig, size: int, rng: np.random.Generator) -> Float64[np.ndarray, "2 3"]:
    """The affine map, from the image to the warped one, in pixels; about the middle."""
    turn, scale, x, y = rng.uniform(-1, 1, 4)
    middle = (size - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), config.turn * turn, 1 + config.scale * scale)
    matrix[:, 2] += np.array([x, y]) * config.shift * size
    return matrix


def warp(image: UInt8[np.ndarray, "S S 3"], matrix: Float64[np.ndarray, "2 3"]) -> UInt8[np.ndarray, "S S 3"]:
    """The warped image; beyond the border it is mirrored."""
    return cv2.warpAffine(image, matrix, image.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)


def draw_crop(crop: int, size: int, rng: np.random.Generator) -> tuple[slice, slice]:
    """A window of `crop` pixels a side within `size`."""
    top, left = (int(first) for first in rng.integers(0, size - crop, 2, endpoint=True))
    return slice(top, top + crop), slice(left, left + crop)
