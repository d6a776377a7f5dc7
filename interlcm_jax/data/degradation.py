"""From a good face to a bad one: the degradations that InterLCM is trained on.

Drawing the numbers and applying them are apart: what was done to an image can be seen, kept and done again.
"""

import dataclasses
import math
from typing import Literal, Self

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from interlcm_jax.data.photometric import without_colors
from interlcm_jax.data.strokes import Stroke, StrokeConfig, draw_strokes, paint
from interlcm_jax.errors import InterLCMError

Image = UInt8[np.ndarray, "H W 3"]
Kind = Literal["blind", "gray", "strokes"]

# Smallest and largest value of each range.
_BOUNDS = {
    "blur_sigma": (1e-3, math.inf),
    "rotation": (-math.pi, math.pi),
    "downsampling": (1, math.inf),
    "noise_sigma": (0, 255),
    "jpeg_quality": (1, 100),
}
_PROBABILITIES = ("isotropic_probability", "color_jitter_probability", "gray_probability", "mild_probability")


@dataclasses.dataclass(frozen=True)
class DegradationConfig:
    """What low-quality faces are drawn from; ranges are uniform, and both ends belong to them.

    The defaults are those of the released restoration model.

    Attributes:
        kind: "blind" (blur, downsampling, noise, JPEG: restoration), "gray" (colorization) or "strokes" (inpainting);
            the last two degrade in no other way.
        kernel_size: side of the blur kernel, pixels, odd.
        isotropic_probability: how many blurs are the same in every direction.
        blur_sigma: of the Gaussian blur, pixels; each axis has its own where it isn't isotropic.
        rotation: of a blur that isn't isotropic, radians.
        downsampling: how many times smaller the image gets.
        noise_sigma: of the Gaussian noise, in levels of 255.
        jpeg_quality: integers from 1 to 100.
        color_jitter_probability: how many images have their channels shifted.
        color_jitter: by how much at most, up or down, in levels of 255.
        gray_probability: how many "blind" images are gray too.
        mild_probability: how many "blind" images get a random share of what was drawn, one for blur, downsampling and
            noise: uniform ranges of all three hardly ever leave a face nearly sharp.
        strokes: of the kind "strokes".

    Raises:
        InterLCMError: a field is out of range; the message names it.
    """

    kind: Kind = "blind"
    kernel_size: int = 41
    isotropic_probability: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 10.0)
    rotation: tuple[float, float] = (-math.pi, math.pi)
    downsampling: tuple[float, float] = (1.0, 12.0)
    noise_sigma: tuple[float, float] = (0.0, 15.0)
    jpeg_quality: tuple[int, int] = (60, 99)
    color_jitter_probability: float = 0.0
    color_jitter: float = 20.0
    gray_probability: float = 0.0
    mild_probability: float = 0.0
    strokes: StrokeConfig = dataclasses.field(default_factory=StrokeConfig)

    def __post_init__(self):
        if self.kind not in ("blind", "gray", "strokes"):
            raise InterLCMError(f"degradation.kind is {self.kind!r}, but must be blind, gray or strokes")
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise InterLCMError(f"degradation.kernel_size is {self.kernel_size}, but must be odd and positive")
        if not 0 <= self.color_jitter <= 255:
            raise InterLCMError(f"degradation.color_jitter is {self.color_jitter}, but must be from 0 to 255")
        for name in _PROBABILITIES:
            if not 0 <= getattr(self, name) <= 1:
                raise InterLCMError(f"degradation.{name} is {getattr(self, name)}, but must be from 0 to 1")
        for name, (least, most) in _BOUNDS.items():
            low, high = getattr(self, name)
            if not least <= low <= high <= most or not math.isfinite(high):
                raise InterLCMError(
                    f"degradation.{name} is {(low, high)}, but must be a range, the lower end first, "
                    f"within {least} and {most}"
                )

    @classmethod
    def named(cls, name: str) -> Self:
        """One of the settings below: "release", "release-256", "harsh", "gray" or "strokes"."""
        settings = {"release": cls.release, "release-256": cls.release_256, "harsh": cls.harsh}
        return (settings | {"gray": cls.gray, "strokes": cls.brushed})[name]()

    @classmethod
    def release(cls) -> Self:
        """What the released models for restoration were trained on."""
        return cls()

    @classmethod
    def release_256(cls) -> Self:
        """The release's for faces of 256 pixels, which it makes as hard to tell as those of 512."""
        return cls(blur_sigma=(0.05, 5.0), downsampling=(1.0, 6.0))

    @classmethod
    def harsh(cls) -> Self:
        """The release's harsher set."""
        return cls(blur_sigma=(1.0, 15.0), downsampling=(4.0, 30.0), noise_sigma=(0.0, 20.0), jpeg_quality=(30, 80))

    @classmethod
    def gray(cls) -> Self:
        """For colorization."""
        return cls(kind="gray")

    @classmethod
    def brushed(cls) -> Self:
        """For inpainting."""
        return cls(kind="strokes")


@dataclasses.dataclass(frozen=True)
class Blind:
    """The numbers of one blind degradation.

    Attributes:
        kernel_size: side of the blur kernel, pixels.
        sigma_x: of the blur along its first axis, pixels.
        sigma_y: along the second.
        rotation: of these axes, radians.
        scale: how many times smaller the image gets.
        noise_sigma: in levels of 255.
        noise_seed: of the noise itself.
        jpeg_quality: 1 to 100.
    """

    kernel_size: int
    sigma_x: float
    sigma_y: float
    rotation: float
    scale: float
    noise_sigma: float
    noise_seed: int
    jpeg_quality: int


@dataclasses.dataclass(frozen=True)
class Draws:
    """All that `degrade` needs to know; what is None, False or empty isn't done.

    Attributes:
        blind: blur, downsampling, noise and JPEG.
        color_shift: added to red, green and blue, in levels of 255.
        gray: without colors.
        strokes: white ones, over the rest.
    """

    blind: Blind | None = None
    color_shift: tuple[float, float, float] | None = None
    gray: bool = False
    strokes: tuple[Stroke, ...] = ()


def draw(config: DegradationConfig, rng: np.random.Generator) -> Draws:
    """Draws the numbers of one degradation."""
    if config.kind == "strokes":
        return Draws(strokes=draw_strokes(config.strokes, rng))
    if config.kind == "gray":
        return Draws(gray=True)
    blind = _draw_blind(config, rng)
    shift = None
    if rng.random() < config.color_jitter_probability:
        shift = tuple(rng.uniform(-config.color_jitter, config.color_jitter, 3).tolist())
    gray = bool(rng.random() < config.gray_probability)
    if rng.random() < config.mild_probability:
        blind = _share_of(blind, rng.random())
    return Draws(blind, shift, gray)


def _draw_blind(config: DegradationConfig, rng: np.random.Generator) -> Blind:
    sigma_x = sigma_y = rng.uniform(*config.blur_sigma)
    rotation = 0.0
    if rng.random() >= config.isotropic_probability:
        sigma_y = rng.uniform(*config.blur_sigma)
        rotation = rng.uniform(*config.rotation)
    return Blind(
        kernel_size=config.kernel_size,
        sigma_x=float(sigma_x),
        sigma_y=float(sigma_y),
        rotation=float(rotation),
        scale=float(rng.uniform(*config.downsampling)),
        noise_sigma=float(rng.uniform(*config.noise_sigma)),
        noise_seed=int(rng.integers(2**63)),
        jpeg_quality=int(rng.integers(*config.jpeg_quality, endpoint=True)),
    )


def _share_of(blind: Blind, share: float) -> Blind:
    return dataclasses.replace(
        blind,
        # A kernel needs some width; this one is a single pixel.
        sigma_x=max(share * blind.sigma_x, 1e-3),
        sigma_y=max(share * blind.sigma_y, 1e-3),
        scale=1 + share * (blind.scale - 1),
        noise_sigma=share * blind.noise_sigma,
    )


def degrade(hq: Image, draws: Draws) -> Image:
    """The low-quality image for given draws; the same bytes on every run.

    Blind degradation, as the release's and, before it, GFPGAN's (Wang et al. 2021, equation 1): blur, downsampling
    (bilinear), noise, JPEG, and back to the size it had (bilinear), computed in float32 from 0 to 1.
    """
    lq = np.divide(hq, 255, dtype=np.float32)
    if draws.blind is not None:
        lq = _degrade_blind(lq, draws.blind)
    if draws.color_shift is not None:
        lq = (lq + np.array(draws.color_shift, np.float32) / 255).clip(0, 1)
    if draws.gray:
        lq = without_colors(lq)
    lq = _to_bytes(lq)
    return paint(lq, draws.strokes) if draws.strokes else lq


def _degrade_blind(image: Float32[np.ndarray, "H W 3"], draws: Blind) -> Float32[np.ndarray, "H W 3"]:
    height, width, _ = image.shape
    image = _blur(image, draws)
    size = max(1, int(width // draws.scale)), max(1, int(height // draws.scale))
    image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    noise = np.random.Generator(np.random.PCG64(draws.noise_seed)).standard_normal(image.shape, np.float32)
    image = (image + noise * np.float32(draws.noise_sigma / 255)).clip(0, 1)
    # The encoder would round floats itself, and it wants blue first.
    pixels = cv2.cvtColor(_to_bytes(image), cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, draws.jpeg_quality])
    decoded = cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return cv2.resize(decoded.astype(np.float32) / 255, (width, height), interpolation=cv2.INTER_LINEAR)


def _blur(image: Float32[np.ndarray, "H W 3"], draws: Blind) -> Float32[np.ndarray, "H W 3"]:
    if draws.sigma_x == draws.sigma_y:
        # The same but for rounding, in a third of the time: a round Gaussian is a row's times a column's.
        axis = np.arange(draws.kernel_size) - (draws.kernel_size - 1) / 2
        weights = np.exp(-0.5 * (axis / draws.sigma_x) ** 2)
        weights = (weights / weights.sum()).astype(np.float32)
        return cv2.sepFilter2D(image, -1, weights, weights)
    return cv2.filter2D(image, -1, gaussian_kernel(draws.kernel_size, draws.sigma_x, draws.sigma_y, draws.rotation))


def gaussian_kernel(size: int, sigma_x: float, sigma_y: float, rotation: float) -> Float32[np.ndarray, "size size"]:
    """A Gaussian whose axes are rotated by so many radians; its values sum up to 1."""
    axis = np.arange(size) - (size - 1) / 2
    x, y = np.meshgrid(axis, axis)
    along = math.cos(rotation) * x + math.sin(rotation) * y
    across = math.cos(rotation) * y - math.sin(rotation) * x
    kernel = np.exp(-0.5 * ((along / sigma_x) ** 2 + (across / sigma_y) ** 2))
    return (kernel / kernel.sum()).astype(np.float32)


def _to_bytes(image: Float32[np.ndarray, "H W 3"]) -> Image:
    # Rounds to even and stops at 255, in one pass; no image here is below 0.
    return cv2.convertScaleAbs(image, alpha=255)
