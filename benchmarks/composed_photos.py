"""Photos composed of aligned faces on many backgrounds, so that the place of each face is known."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from interlcm_jax.faces.align import TEMPLATE, TEMPLATE_SIZE
from interlcm_jax.imaging.io import read_image

# Of aligned faces: the oval from hairline to chin, and the one with the hair, that is pasted.
FACE_CENTER, FACE_AXES = np.array([256.0, 282.0]), np.array([140.0, 178.0])
HEAD_CENTER, HEAD_AXES = (256, 262), (200, 230)
HEIGHTS, LARGEST_ANGLE, FACES = (40, 250), 30, (3, 8)
WIDTHS, RATIOS = (500, 1500), (0.6, 1.5)


@dataclasses.dataclass(frozen=True, eq=False)
class KnownFace:
    """Where a face was pasted: box, landmarks (the template's), height of the oval, turn in degrees."""

    box: Float[np.ndarray, "4"]
    landmarks: Float[np.ndarray, "5 2"]
    height: float
    angle: float


@dataclasses.dataclass(frozen=True, eq=False)
class Photo:
    """A composed photo and what is in it."""

    pixels: UInt8[np.ndarray, "H W 3"]
    faces: list[KnownFace]


def compose(rng: np.random.Generator, files: Sequence[Path], *, degraded: bool = False) -> Photo:
    """Draws a photo: background, faces that don't touch, JPEG.

    Args:
        rng: decides everything; with an equal one the same faces are in the same places, degraded or not.
        files: images of aligned faces.
        degraded: blur it (sigma 1 to 3), halve or third its resolution, add noise (5 to 20 levels), and save it as a
            JPEG of quality 40.
    """
    width = int(rng.integers(*WIDTHS))
    shape = (int(width * rng.uniform(*RATIOS)), width)
    pixels = rng.choice(BACKGROUNDS)(rng, shape, files).astype(np.float32)
    faces: list[KnownFace] = []
    circles: list[tuple[float, float, float]] = []
    for _ in range(rng.integers(*FACES, endpoint=True)):
        height = float(np.exp(rng.uniform(*np.log(HEIGHTS))))
        scale = height / (2 * FACE_AXES[1])
        radius = scale * max(HEAD_AXES)
        place = _free_place(rng, shape, radius, circles)
        if place is not None:
            circles.append((*place, radius))
            angle = float(rng.uniform(-LARGEST_ANGLE, LARGEST_ANGLE))
            faces.append(_paste(pixels, _aligned(rng.choice(files)), np.array(place), scale, angle))
    pixels = pixels.clip(0, 255).astype(np.uint8)
    return Photo(_degraded(rng, pixels) if degraded else _jpeg(pixels, int(rng.integers(60, 96))), faces)


def _jpeg(pixels: UInt8[np.ndarray, "H W 3"], quality: int) -> UInt8[np.ndarray, "H W 3"]:
    encoded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1]


def _degraded(rng: np.random.Generator, pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    size = pixels.shape[1::-1]
    factor = rng.uniform(2, 3)
    blurred = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(1, 3))
    small = cv2.resize(blurred, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
    noisy = cv2.resize(small, size, interpolation=cv2.INTER_LINEAR) + rng.normal(0, rng.uniform(5, 20), pixels.shape)
    return _jpeg(noisy.clip(0, 255).astype(np.uint8), 40)


def _free_place(
    rng: np.random.Generator, shape: tuple[int, int], radius: float, circles: Sequence[tuple[float, float, float]]
) -> tuple[float, float] | None:
    """A center, x and y, where a circle fits between the others, if one is soon found."""
    height, width = shape
    if min(shape) <= 2 * radius:
        return None
    for _ in range(100):
        x, y = rng.uniform(radius, width - radius), rng.uniform(radius, height - radius)
        if all(np.hypot(x - u, y - v) > radius + r for u, v, r in circles):
            return float(x), float(y)
    return None


def _aligned(path: Path) -> UInt8[np.ndarray, "512 512 3"]:
    return cv2.resize(read_image(path), (TEMPLATE_SIZE, TEMPLATE_SIZE), interpolation=cv2.INTER_AREA)


def _paste(
    pixels: Float[np.ndarray, "H W 3"],
    face: UInt8[np.ndarray, "512 512 3"],
    place: Float[np.ndarray, "2"],
    scale: float,
    angle: float,
) -> KnownFace:
    """Blends a head into the photo in place, its oval's edge feathered."""
    radians = np.deg2rad(angle)
    cos, sin = np.cos(radians), np.sin(radians)
    turn = np.array([[cos, -sin], [sin, cos]])
    # Shrunk by area first: warping alone would alias.
    small = cv2.resize(face, None, fx=min(1, scale), fy=min(1, scale), interpolation=cv2.INTER_AREA)
    mask = np.zeros((TEMPLATE_SIZE, TEMPLATE_SIZE), np.float32)
    cv2.ellipse(mask, HEAD_CENTER, HEAD_AXES, 0, 0, 360, 1.0, -1)
    mask = cv2.resize(cv2.GaussianBlur(mask, (0, 0), 10), small.shape[1::-1], interpolation=cv2.INTER_AREA)
    linear = turn * scale * TEMPLATE_SIZE / small.shape[0]
    center = (np.array(HEAD_CENTER) + 0.5) * small.shape[0] / TEMPLATE_SIZE - 0.5
    matrix = np.column_stack([linear, place - linear @ center])
    size = pixels.shape[1::-1]
    alpha = cv2.warpAffine(mask, matrix, size, flags=cv2.INTER_LINEAR)[..., None]
    warped = cv2.warpAffine(small, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    pixels += alpha * (warped - pixels)

    def to_photo(points: Float[np.ndarray, "... 2"]) -> Float[np.ndarray, "... 2"]:
        return (points - np.array(HEAD_CENTER)) * scale @ turn.T + place

    half = scale * np.hypot(turn[:, 0] * FACE_AXES[0], turn[:, 1] * FACE_AXES[1])
    middle = to_photo(FACE_CENTER)
    box = np.concatenate([middle - half, middle + half])
    return KnownFace(box, to_photo(TEMPLATE), 2 * scale * float(FACE_AXES[1]), angle)


def _gradient(rng: np.random.Generator, shape: tuple[int, int], files: Sequence[Path]) -> UInt8[np.ndarray, "H W 3"]:
    """A smooth change between four colors."""
    corners = rng.integers(0, 256, (2, 2, 3)).astype(np.uint8)
    return cv2.resize(corners, shape[::-1], interpolation=cv2.INTER_LINEAR)


def _noise(rng: np.random.Generator, shape: tuple[int, int], files: Sequence[Path]) -> UInt8[np.ndarray, "H W 3"]:
    """Noise of one grain, from single pixels to blots."""
    grain = np.exp(rng.uniform(0, np.log(60)))
    small = rng.integers(0, 256, (*(max(2, int(side / grain)) for side in shape), 3)).astype(np.uint8)
    return cv2.resize(small, shape[::-1], interpolation=cv2.INTER_CUBIC)


def _stripes(rng: np.random.Generator, shape: tuple[int, int], files: Sequence[Path]) -> Float[np.ndarray, "H W 3"]:
    """Two crossing waves."""
    y, x = np.indices(shape)[..., None] / np.exp(rng.uniform(np.log(3), np.log(40)))
    a, b, c, d = rng.uniform(-1, 1, (4, 3))
    return 127.5 + 60 * np.sin(a * x + b * y) + 60 * np.sin(c * x + d * y)


def _pieces(rng: np.random.Generator, shape: tuple[int, int], files: Sequence[Path]) -> UInt8[np.ndarray, "H W 3"]:
    """Blocks of an image in disorder, too small to show a face: skin, hair, eyes, clothes."""
    block = int(rng.choice([32, 64]))
    count = TEMPLATE_SIZE // block
    blocks = (
        _aligned(rng.choice(files)).reshape(count, block, count, block, 3).swapaxes(1, 2).reshape(-1, block, block, 3)
    )
    rows, columns = (-(-side // block) for side in shape)
    picked = blocks[rng.integers(0, len(blocks), (rows, columns))]
    return picked.swapaxes(1, 2).reshape(rows * block, columns * block, 3)[: shape[0], : shape[1]]


def _corner(rng: np.random.Generator, shape: tuple[int, int], files: Sequence[Path]) -> UInt8[np.ndarray, "H W 3"]:
    """The upper corner of an image, beside the head, enlarged."""
    corner = _aligned(rng.choice(files))[:130, :130]
    return cv2.resize(corner, shape[::-1], interpolation=cv2.INTER_CUBIC)


BACKGROUNDS: tuple[Callable, ...] = (_gradient, _noise, _stripes, _pieces, _corner)
