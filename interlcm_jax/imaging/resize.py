"""Image resizing that equals PyTorch's, number by number."""

import numpy as np
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float

# PyTorch's coefficient; `jax.image.resize` and Pillow take -0.5.
CUBIC_A = -0.75


def bicubic_resize(x: Float[Array, "B H W C"], size: tuple[int, int]) -> Float[Array, "B h w C"]:
    """Bicubic resize with half-pixel centers, replicated borders and no antialiasing.

    Equals `torch.nn.functional.interpolate(mode="bicubic", align_corners=False)`; like it, it overshoots the input's
    range at sharp edges. Computed in float32.

    Args:
        x: images in any range.
        size: height and width of the result.
    """
    height, width = size
    return _resize(x, cubic_weights(x.shape[1], height), cubic_weights(x.shape[2], width))


def bilinear_resize(x: Float[Array, "B H W C"], size: tuple[int, int]) -> Float[Array, "B h w C"]:
    """Bilinear resize with half-pixel centers, replicated borders and no antialiasing.

    Equals `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`. Computed in float32.

    Args:
        x: images in any range.
        size: height and width of the result.
    """
    height, width = size
    return _resize(x, linear_weights(x.shape[1], height), linear_weights(x.shape[2], width))


def cubic_weights(length: int, size: int) -> Float[np.ndarray, "size length"]:
    """The matrix that resizes one axis; each row holds the four taps of one output element.

    A position near 500 leaves float32 only 15 bits for its fraction, so the weights follow PyTorch's rounding step by
    step: a multiplication and the addition after it are one rounding.
    """
    position = _positions(length, size)
    first = np.floor(position)
    after = position - first
    before = np.float32(1) - after
    taps = (
        _cubic_far(after + np.float32(1)),
        _cubic_near(after),
        _cubic_near(before),
        _cubic_far(before + np.float32(1)),
    )
    weights = np.zeros((size, length), np.float32)
    for offset, tap in enumerate(taps, start=-1):
        # Taps beyond the border fall on the border's own element and add up there.
        index = np.clip(first.astype(int) + offset, 0, length - 1)
        np.add.at(weights, (np.arange(size), index), tap)
    return weights


def linear_weights(length: int, size: int) -> Float[np.ndarray, "size length"]:
    """The same for the two taps of bilinear resizing."""
    position = np.maximum(_positions(length, size), 0)
    first = np.minimum(position.astype(int), length - 1)
    after = position - first.astype(np.float32)
    weights = np.zeros((size, length), np.float32)
    np.add.at(weights, (np.arange(size), first), np.float32(1) - after)
    np.add.at(weights, (np.arange(size), np.minimum(first + 1, length - 1)), after)
    return weights


def _resize(x: Array, rows: np.ndarray, columns: np.ndarray) -> Array:
    """Applies the matrices of the two axes, the width's first."""
    out = jnp.einsum("bhwc,xw->bhxc", x.astype(jnp.float32), columns, precision=lax.Precision.HIGHEST)
    out = jnp.einsum("bhwc,yh->bywc", out, rows, precision=lax.Precision.HIGHEST)
    return out.astype(x.dtype)


def _positions(length: int, size: int) -> np.ndarray:
    """Where the centers of the output's elements lie in the input, in elements counted from the center of its first."""
    step = np.float32(length) / np.float32(size)
    return _fused(step, np.arange(size) + 0.5, -0.5)


def _cubic_near(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel (IEEE Trans. ASSP 29, 1981) at distances up to 1."""
    return _fused(_fused(CUBIC_A + 2, x, -(CUBIC_A + 3)) * x, x, 1)


def _cubic_far(x: np.ndarray) -> np.ndarray:
    """The same kernel at distances from 1 to 2."""
    return _fused(_fused(_fused(CUBIC_A, x, -5 * CUBIC_A), x, 8 * CUBIC_A), x, -4 * CUBIC_A)


def _fused(factor: float | np.ndarray, x: np.ndarray, summand: float) -> np.ndarray:
    """factor · x + summand, rounded to float32 once."""
    return (np.float64(factor) * x + summand).astype(np.float32)
