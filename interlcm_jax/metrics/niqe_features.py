"""What NIQE measures in an image: how the locally normalized brightness of each block of 96 pixels is distributed.

Mittal, Soundararajan and Bovik, "Making a Completely Blind Image Quality Analyzer", IEEE Signal Processing Letters 20.3
(2013). The device takes moments of each block in float32, by formulas that lose nothing to it; the host fits the
distributions to them in float64.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from interlcm_jax.errors import InterLCMError
from interlcm_jax.runtime.compiler_options import jit

BLOCK = 96
RADIUS, SIGMA = 3, 7 / 6
NUM_FEATURES = 36
# Neighbors that a block is multiplied with: to the right, below, and on both diagonals.
SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
# BT.601's luma of R, G and B on its studio range, in thousandths of a level.
_LUMA = (65_481, 128_553, 24_966)
# MATLAB's bicubic `imresize(image, 0.5)`, antialiased; they add up to 1 exactly.
_HALVING = (-3 / 256, -9 / 256, 29 / 256, 111 / 256, 111 / 256, 29 / 256, -9 / 256, -3 / 256)


class Moments(NamedTuple):
    """Of an image's blocks, for each of two scales and of five maps: the normalized block and its four products.

    Attributes:
        left: mean square of the values below 0; NaN where there are none.
        right: mean square of those above 0.
        absolute: mean absolute value.
        square: mean square.
        sharpness: mean local deviation of each block at the first scale, in levels of 0 to 255.
    """

    left: Float[Array, "B blocks 2 5"]
    right: Float[Array, "B blocks 2 5"]
    absolute: Float[Array, "B blocks 2 5"]
    square: Float[Array, "B blocks 2 5"]
    sharpness: Float[Array, "B blocks"]


@jit
def block_moments(images: UInt8[Array | np.ndarray, "B H W 3"]) -> Moments:
    """Moments of the whole blocks of RGB images; what is left over at the right and below doesn't count.

    Raises:
        InterLCMError: the images aren't uint8 (B, H, W, 3), or hold less than one block.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != jnp.uint8:
        raise InterLCMError(f"NIQE takes uint8 images (B, H, W, 3), not {images.dtype} {images.shape}")
    height, width = (side // BLOCK * BLOCK for side in images.shape[1:3])
    if not height * width:
        raise InterLCMError(f"NIQE's blocks are {BLOCK} pixels wide, and the images only {images.shape[1:3]}")
    first = luma(images[:, :height, :width])
    of_scale, deviations = [], []
    for brightness, block in ((first, BLOCK), (halve(first), BLOCK // 2)):
        normalized, deviation = normalize(brightness)
        x = _blocks(normalized, block)
        maps = jnp.stack([x, *(x * jnp.roll(x, shift, axis=(2, 3)) for shift in SHIFTS)], axis=2)
        of_scale.append(_moments(maps.reshape(*maps.shape[:3], -1)))
        deviations.append(_blocks(deviation, block))
    sharpness = _sum(deviations[0].reshape(*deviations[0].shape[:2], -1)) / BLOCK**2
    return Moments(*(jnp.stack(both, axis=2) for both in zip(*of_scale, strict=True)), sharpness)


def luma(images: UInt8[Array | np.ndarray, "B H W 3"]) -> Float[Array | np.ndarray, "B H W"]:
    """BT.601's luma in whole levels, 16 to 235.

    In whole numbers, and so the same on every device. BasicSR's, in floats, is another by one level for 141 colors out
    of 16.8 million, all but exactly between two levels.
    """
    thousandths = sum(weight * images[..., i].astype(jnp.int32) for i, weight in enumerate(_LUMA))
    return ((thousandths + 127_500) // 255_000 + 16).astype(jnp.float32)


def normalize(brightness: Float[Array, "B H W"]) -> tuple[Float[Array, "B H W"], Float[Array, "B H W"]]:
    """Brightness less its local mean, over its local deviation plus 1 (equation 1); and that deviation.

    A Gaussian window of 7 x 7 and deviation 7/6, borders replicated, the two axes one after the other. Mean and
    variance are sums of differences: so they are exact in even areas, where what should be 0 would else take a sign.
    """
    taps = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / SIGMA) ** 2)
    taps = [float(tap) for tap in taps / taps.sum()]
    mean = jnp.pad(brightness, ((0, 0), (RADIUS, RADIUS), (RADIUS, RADIUS)), mode="edge")
    variance = jnp.zeros_like(mean)
    for axis in (1, 2):
        size = mean.shape[axis] - 2 * RADIUS
        means, variances = (
            [jax.lax.slice_in_dim(y, start, start + size, axis=axis) for start in range(len(taps))]
            for y in (mean, variance)
        )
        center = means[RADIUS]
        mean = center + sum(tap * (part - center) for tap, part in zip(taps, means, strict=True))
        spreads = [within + (part - mean) ** 2 for within, part in zip(variances, means, strict=True)]
        variance = sum(tap * spread for tap, spread in zip(taps, spreads, strict=True))
    deviation = jnp.sqrt(variance)
    # float32 holds the mean to half a unit, as BasicSR does: on an even slope too the difference is 0 exactly.
    return (brightness - mean) / (deviation + 1), deviation


def halve(brightness: Float[Array, "B H W"]) -> Float[Array, "B h w"]:
    """Half the resolution, as MATLAB's `imresize(image, 0.5)`: bicubic, antialiased, borders mirrored."""
    x = jnp.pad(brightness, ((0, 0), (RADIUS, RADIUS), (RADIUS, RADIUS)), mode="symmetric")
    for axis in (1, 2):
        size = x.shape[axis] // 2 - RADIUS
        parts = (jax.lax.slice_in_dim(x, start, start + 2 * size - 1, stride=2, axis=axis) for start in range(8))
        x = sum(tap * part for tap, part in zip(_HALVING, parts, strict=True))
    return x


def features(moments: Moments) -> Float[np.ndarray, "B blocks 36"]:
    """The 18 features of each block at each of the two scales (equations 4 to 8), on the host in float64.

    An asymmetric generalized Gaussian is fitted to each map: shape alpha on BasicSR's grid of 0.2 to 10 in steps of
    0.001, and a left and a right width. Without values on one side there is no such fit: its widths are NaN, as
    BasicSR's are. Where the ratio of moments falls between two shapes of the grid, rounding may pick the other one.
    """
    left, right, absolute, square = (np.asarray(m, np.float64) for m in moments[:4])
    shapes, ratios, width_factors, mean_factors = _shape_tables()
    with np.errstate(invalid="ignore", divide="ignore"):
        asymmetry = np.sqrt(left / right)
        ratio = absolute**2 / square * (asymmetry**3 + 1) * (asymmetry + 1) / (asymmetry**2 + 1) ** 2
    nearest = np.searchsorted((ratios[1:] + ratios[:-1]) / 2, ratio)
    index = np.where(np.isnan(ratio), 0, nearest)
    alpha, beta_left, beta_right = shapes[index], *(np.sqrt(m) * width_factors[index] for m in (left, right))
    mean = (beta_right - beta_left) * mean_factors[index]
    block = np.stack([alpha, (beta_left + beta_right) / 2], axis=-1)[..., 0, :]
    products = np.stack([alpha, mean, beta_left, beta_right], axis=-1)[..., 1:, :]
    by_scale = np.concatenate([block, products.reshape(*products.shape[:-2], -1)], axis=-1)
    return by_scale.reshape(*by_scale.shape[:2], NUM_FEATURES)


@functools.cache
def _shape_tables() -> tuple[np.ndarray, ...]:
    """For each shape of the grid: itself, its ratio of moments, and its factors of width and of mean."""
    shapes = np.arange(0.2, 10.001, 0.001)
    once, twice, thrice = (np.vectorize(math.gamma)(n / shapes) for n in (1, 2, 3))
    return shapes, twice**2 / (once * thrice), np.sqrt(once / thrice), twice / once


def _blocks(x: Float[Array, "B H W"], side: int) -> Float[Array, "B blocks side side"]:
    batch, height, width = x.shape
    grid = x.reshape(batch, height // side, side, width // side, side)
    return grid.swapaxes(2, 3).reshape(batch, -1, side, side)


def _moments(x: Float[Array, "B blocks 5 N"]) -> tuple[Float[Array, "B blocks 5"], ...]:
    square = x * x
    sides = (x < 0, x > 0)
    sums = [_sum(jnp.where(side, square, 0.0)) for side in sides]
    left, right = (total / side.sum(-1).astype(x.dtype) for total, side in zip(sums, sides, strict=True))
    return left, right, _sum(jnp.abs(x)) / x.shape[-1], sum(sums) / x.shape[-1]


def _sum(x: Float[Array, "... N"]) -> Float[Array, "..."]:
    """The sum over the last axis, by halves down to a short row: one by one, float32 loses digits."""
    while x.shape[-1] > BLOCK:
        half = x.shape[-1] // 2  # a block's pixels are 9 times a power of two
        x = x[..., :half] + x[..., half:]
    return x.sum(-1)
