"""OpenCV's 8-bit arithmetic in JAX, level by level: what the field's evaluation scripts do to files they read."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8

# `cv2.imread(file, 0)` of a PNG leaves gray to libpng: 0.299 and 0.587 in 15 bits, what is left for blue, and all of it
# cut off. `cv2.cvtColor` rounds instead, and is half a level brighter.
GRAY_WEIGHTS, GRAY_BITS = (9797, 19234, 3737), 15
LINEAR_ONE = 2048  # one, in the fixed point of linear resizing


def read_gray(pixels: UInt8[Array | np.ndarray, "B H W 3"]) -> UInt8[Array | np.ndarray, "B H W 1"]:
    """RGB images as `cv2.imread(file, cv2.IMREAD_GRAYSCALE)` reads them from PNG files."""
    levels = pixels.astype(jnp.int32)
    gray = sum(weight * levels[..., i : i + 1] for i, weight in enumerate(GRAY_WEIGHTS))
    return (gray >> GRAY_BITS).astype(jnp.uint8)


def linear_resize(pixels: UInt8[Array, "B H W C"], size: tuple[int, int]) -> UInt8[Array, "B h w C"]:
    """Bilinear resize without antialiasing: `cv2.resize(image, size[::-1])`, the same levels.

    OpenCV computes in fixed point and cuts digits off on the way, so an exact result rounded differs by a level in one
    pixel of eight.

    Args:
        pixels: the images.
        size: height and width of the result.
    """
    height, width = size
    x = pixels.astype(jnp.int32)
    (left, right), (near, far) = _taps(x.shape[2], width)
    x = x[:, :, left] * near[None, None, :, None] + x[:, :, right] * far[None, None, :, None]
    (top, bottom), (near, far) = _taps(x.shape[1], height)
    upper, lower = (
        ((x[:, rows] >> 4) * weights[None, :, None, None]) >> 16 for rows, weights in ((top, near), (bottom, far))
    )
    return ((upper + lower + 2) >> 2).astype(jnp.uint8)


def _taps(length: int, size: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Which two elements of an axis make each one of the result, and their weights in fixed point."""
    position = ((np.arange(size) + 0.5) * (1 / (size / length)) - 0.5).astype(np.float32)
    first = np.floor(position)
    after = position - first
    indices = tuple(np.clip(first.astype(int) + i, 0, length - 1) for i in (0, 1))
    weights = tuple(np.rint(part * np.float32(LINEAR_ONE)).astype(np.int32) for part in (1 - after, after))
    return indices, weights
