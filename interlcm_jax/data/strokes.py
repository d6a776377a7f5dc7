"""White brush strokes over a face: what the inpainting model restores."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from interlcm_jax.errors import InterLCMError

# Yu et al. 2019 (Free-Form Image Inpainting with Gated Convolution), algorithm 1: the brush turns by this angle and
# back at every vertex, give or take the range, and goes on by a normally distributed length.
_MEAN_ANGLE = 2 * math.pi / 5
_ANGLE_RANGE = 2 * math.pi / 15
_MEAN_LENGTH = math.sqrt(2) / 8  # of the image's side
# The image size that widths are given at.
_SIZE = 512


@dataclasses.dataclass(frozen=True)
class StrokeConfig:
    """How many strokes of what shape; both ends of a range belong to it (InterLCM's inpainting training).

    Attributes:
        count: strokes an image.
        vertices: vertices a stroke.
        width: pixels, in an image of 512.

    Raises:
        InterLCMError: a range is empty or starts below 1; the message names it.
    """

    count: tuple[int, int] = (1, 3)
    vertices: tuple[int, int] = (8, 27)
    width: tuple[float, float] = (30.0, 70.0)

    def __post_init__(self):
        for name, (low, high) in dataclasses.asdict(self).items():
            if not 1 <= low <= high:
                raise InterLCMError(f"strokes.{name} is {(low, high)}, but must be a range from at least 1 upwards")


@dataclasses.dataclass(frozen=True)
class Stroke:
    """One stroke, in parts of the image's side: its vertices (x, y), from 0 to 1, and its width."""

    vertices: tuple[tuple[float, float], ...]
    width: float


def draw_strokes(config: StrokeConfig, rng: np.random.Generator) -> tuple[Stroke, ...]:
    """Draws the shapes of an image's strokes."""
    count = rng.integers(*config.count, endpoint=True)
    return tuple(_draw_stroke(config, rng) for _ in range(count))


def _draw_stroke(config: StrokeConfig, rng: np.random.Generator) -> Stroke:
    count = int(rng.integers(*config.vertices, endpoint=True))
    turned = rng.uniform(_MEAN_ANGLE - _ANGLE_RANGE, _MEAN_ANGLE + _ANGLE_RANGE, count - 1)
    angles = np.where(np.arange(count - 1) % 2 == 0, 2 * math.pi - turned, turned)
    lengths = rng.normal(_MEAN_LENGTH, _MEAN_LENGTH / 2, count - 1).clip(0, 2 * _MEAN_LENGTH)
    vertex = rng.uniform(0, 1, 2)
    vertices = [vertex]
    for angle, length in zip(angles, lengths, strict=True):
        vertex = (vertex + length * np.array([math.cos(angle), math.sin(angle)])).clip(0, 1)
        vertices.append(vertex)
    return Stroke(tuple((float(x), float(y)) for x, y in vertices), float(rng.uniform(*config.width)) / _SIZE)


def paint(image: UInt8[np.ndarray, "H W 3"], strokes: Sequence[Stroke]) -> UInt8[np.ndarray, "H W 3"]:
    """A copy of an image under white strokes, their ends and joints round."""
    painted = Image.fromarray(image)
    brush = ImageDraw.Draw(painted)
    for stroke in strokes:
        width = max(1, round(stroke.width * painted.width))
        points = [(x * painted.width, y * painted.height) for x, y in stroke.vertices]
        brush.line(points, fill="white", width=width, joint="curve")
        for point in points:
            brush.circle(point, width / 2, fill="white")
    return np.array(painted)
