"""Faces in other light and on other film, so that a training on even portraits meets shadows and old prints."""

import dataclasses
import math

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from interlcm_jax.errors import InterLCMError

Image = UInt8[np.ndarray, "H W 3"]


@dataclasses.dataclass(frozen=True)
class PhotometricConfig:
    """What an image's tones are changed by; ranges are uniform and to both sides, and the default is no change.

    Attributes:
        probability: how many images are changed.
        gray: how many of these lose their colors.
        gamma: doublings of the tone curve's exponent; 1 is from a half to twice.
        contrast: doublings of the contrast about middle gray.
        shade: share of the light that the side away from a lamp lacks: from 0 to this, the lamp anywhere around.
        tint: levels of 255 by which red, green and blue are shifted, each on its own.

    Raises:
        InterLCMError: a field is out of range; the message names it.
    """

    probability: float = 0.0
    gray: float = 0.0
    gamma: float = 0.0
    contrast: float = 0.0
    shade: float = 0.0
    tint: float = 0.0

    def __post_init__(self):
        for name, most in (("probability", 1), ("gray", 1), ("gamma", 4), ("contrast", 4), ("shade", 1), ("tint", 255)):
            if not 0 <= getattr(self, name) <= most:
                raise InterLCMError(f"data.photometric.{name} is {getattr(self, name)}, but must be from 0 to {most}")


@dataclasses.dataclass(frozen=True)
class Tones:
    """The numbers of one change.

    Attributes:
        gray: whether colors go.
        gamma: exponent of the tone curve, values from 0 to 1; above 1 darkens.
        contrast: factor about middle gray.
        shade: share of the light that is missing on the far side.
        towards: where the lamp is, radians from the right, downwards.
        tint: added to red, green and blue, from 0 to 1.
    """

    gray: bool
    gamma: float
    contrast: float
    shade: float
    towards: float
    tint: tuple[float, float, float]


def draw_tones(config: PhotometricConfig, rng: np.random.Generator) -> Tones | None:
    """Draws the numbers of one change; None: this image stays as it is."""
    if rng.random() >= config.probability:
        return None
    gamma, contrast = 2 ** (rng.uniform(-1, 1, 2) * (config.gamma, config.contrast))
    red, green, blue = (rng.uniform(-1, 1, 3) * config.tint / 255).tolist()
    return Tones(
        gray=bool(rng.random() < config.gray),
        gamma=float(gamma),
        contrast=float(contrast),
        shade=float(rng.uniform(0, config.shade)),
        towards=float(rng.uniform(-math.pi, math.pi)),
        tint=(red, green, blue),
    )


def change_tones(image: Image, tones: Tones) -> Image:
    """The image in the light and on the film that the numbers say; the same bytes on every run."""
    changed = np.divide(image, 255, dtype=np.float32)
    if tones.gray:
        changed = without_colors(changed)
    changed = changed * _light(image.shape[:2], tones)[..., None]
    changed = (changed ** np.float32(tones.gamma) - 0.5) * np.float32(tones.contrast) + 0.5
    changed = changed + np.array(tones.tint, np.float32)
    return np.rint(changed.clip(0, 1) * 255).astype(np.uint8)


def without_colors(image: Float32[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "H W 3"]:
    """The gray image, its luminance in all three channels."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def _light(size: tuple[int, int], tones: Tones) -> Float32[np.ndarray, "H W"]:
    height, width = size
    across = np.linspace(-1, 1, width, dtype=np.float32) * np.float32(math.cos(tones.towards))
    down = np.linspace(-1, 1, height, dtype=np.float32) * np.float32(math.sin(tones.towards))
    # As a lamp on a round head: the light's edge is soft, and lies within the middle half.
    away = 1 / (1 + np.exp(6 * (across[None, :] + down[:, None])))
    return 1 - np.float32(tones.shade) * away
