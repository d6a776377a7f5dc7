"""PSNR and SSIM of each restored image against its high-quality original, equal to scikit-image's.

All is float32, and so the formulas are those that lose nothing to it: variances are sums of squares, never differences
of them, and long sums are taken pairwise.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from interlcm_jax.errors import InterLCMError
from interlcm_jax.runtime.compiler_options import jit

Images = Float[Array | np.ndarray, "B H W 3"] | UInt8[Array | np.ndarray, "B H W 3"]
Channel = Literal["rgb", "y"]

RADIUS, SIGMA = 5, 1.5
K1, K2 = 0.01, 0.03
# BT.601's luma on its studio range, of R, G and B in [0, 1]: 16/255 for black to 235/255 for white.
LUMA = (65.481 / 255, 128.553 / 255, 24.966 / 255)
BLACK = 16 / 255


@jit(static_argnames="channel")
def psnr(restored: Images, hq: Images, channel: Channel = "rgb") -> Float[Array, "B"]:
    """Peak signal-to-noise ratio of each image, in dB; infinite for equal images.

    The data range is 255 for uint8 and 2 for floats, which are in [-1, 1]. Float32 has steps of 4e-6 dB above 32 dB:
    where that matters take `decibels` of `mean_squared_error`.

    Args:
        restored: uint8, or floats in [-1, 1]; not clipped.
        hq: the originals, of the same shape and kind.
        channel: "rgb": one error over the three channels (BasicSR's protocol); "y": of BT.601's luma, not rounded.

    Raises:
        InterLCMError: shapes or kinds of numbers differ, or there is no such channel.
    """
    return -10 * jnp.log10(mean_squared_error(restored, hq, channel))


@jit(static_argnames="channel")
def mean_squared_error(restored: Images, hq: Images, channel: Channel = "rgb") -> Float[Array, "B"]:
    """Mean squared error of each image in squares of the data range, right to 2e-7 of itself; arguments as `psnr`'s."""
    difference = _difference(restored, hq, channel)
    # Divided last: differences of uint8 and their squares are whole numbers, and exact.
    return _mean(difference * difference) / _data_range(hq) ** 2


def decibels(mse: Float[Array | np.ndarray, "B"]) -> Float[np.ndarray, "B"]:
    """PSNR of mean squared errors, on the host in float64: within 1e-6 dB of scikit-image's."""
    with np.errstate(divide="ignore"):
        return -10 * np.log10(np.asarray(mse, np.float64))


@jit(static_argnames=("channel", "clip"))
def ssim(restored: Images, hq: Images, channel: Channel = "rgb", *, clip: bool = False) -> Float[Array, "B"]:
    """Structural similarity of each image (Wang et al. 2004), the mean over all whole windows and the channels.

    A Gaussian window of 11 x 11 and deviation 1.5, K1 0.01, K2 0.03, population covariance, no window over the border:
    scikit-image's `structural_similarity` with `gaussian_weights=True, use_sample_covariance=False`, and BasicSR's.
    Floats in [-1, 1] count as [0, 1]: mean brightness enters, and so black is 0 as in uint8.

    Args:
        restored: uint8, or floats in [-1, 1]; not clipped; at least 11 pixels a side.
        hq: the originals, of the same shape and kind.
        channel: as `psnr`'s.
        clip: windows whose structures are opposed count 0, not less: pyiqa's choice.

    Raises:
        InterLCMError: as `psnr`, or the images are smaller than the window.
    """
    if min(restored.shape[1:3]) <= 2 * RADIUS:
        raise InterLCMError(f"SSIM's window is {2 * RADIUS + 1} pixels wide, and the images {restored.shape[1:3]}")
    gap = _difference(restored, hq, channel) / _data_range(hq)
    # One after the other in a loop: XLA:CPU would otherwise compute the moments anew wherever they are used.
    fields = jnp.stack([gap, _unit_range(restored, channel), _unit_range(hq, channel)])
    (mean_gap, mean_x, mean_y), (variance_gap, variance_x, variance_y) = jax.lax.map(_moments, fields)
    # (2ab + c) / (a^2 + b^2 + c) is 1 - (a - b)^2 / (a^2 + b^2 + c), and so for the covariance.
    luminance_gap = mean_gap**2 / (mean_x**2 + mean_y**2 + K1**2)
    structure_gap = variance_gap / (variance_x + variance_y + K2**2)
    if clip:
        structure_gap = jnp.minimum(structure_gap, 1)
    # The mean distance from 1: a good image's is small, and so is its rounding.
    return 1 - _mean(luminance_gap + structure_gap - luminance_gap * structure_gap)


def match_colors(restored: Float[Array, "B H W 3"], hq: Float[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
    """Each channel of each restored image shifted and scaled to its original's mean and deviation; not clipped.

    VQFR's scripts do this before PSNR and SSIM (`correct_mean_var`). A channel of one level is only shifted.

    Args:
        restored: floats in [-1, 1].
        hq: the originals, of the same shape.
    """

    def mean(x: Float[Array, "B H W 3"]) -> Float[Array, "B 1 1 3"]:
        # Rows first: a sum of all pixels one by one would lose digits.
        return x.mean(axis=2, keepdims=True).mean(axis=1, keepdims=True)

    centered, centered_hq = restored - mean(restored), hq - mean(hq)
    variance = mean(centered**2)
    # Less than one pixel of a million that is one level off: the channel is of one level, but for rounding.
    flat = variance < 1e-11
    gain = jnp.where(flat, 1, jnp.sqrt(mean(centered_hq**2) / jnp.where(flat, 1, variance)))
    return centered * gain + mean(hq)


def _difference(restored: Images, hq: Images, channel: Channel) -> Float[Array, "B H W C"]:
    """restored - hq, in the images' own units."""
    kinds = [jnp.issubdtype(x.dtype, jnp.floating) for x in (restored, hq)]
    fitting = kinds[0] == kinds[1] and all(
        kind or x.dtype == jnp.uint8 for kind, x in zip(kinds, (restored, hq), strict=True)
    )
    if restored.shape != hq.shape or restored.ndim != 4 or restored.shape[-1] != 3 or not fitting:
        described = " and ".join(f"{x.dtype} {x.shape}" for x in (restored, hq))
        raise InterLCMError(f"images to compare must be (B, H, W, 3), both uint8 or both floats, but are {described}")
    gap = restored.astype(jnp.float32) - hq.astype(jnp.float32)
    return gap if channel == "rgb" else _luma(gap, channel)


def _data_range(images: Images) -> int:
    return 255 if images.dtype == jnp.uint8 else 2


def _unit_range(images: Images, channel: Channel) -> Float[Array, "B H W C"]:
    """Images in [0, 1]."""
    x = images.astype(jnp.float32)
    x = x / 255 if images.dtype == jnp.uint8 else (x + 1) / 2
    return x if channel == "rgb" else _luma(x, channel) + BLACK


def _luma(x: Float[Array, "B H W 3"], channel: Channel) -> Float[Array, "B H W 1"]:
    """BT.601's luma less its black; no matrix product, which GPU and TPU would round to ten or eight bits."""
    if channel != "y":
        raise InterLCMError(f"channel {channel!r} doesn't exist; choose rgb or y")
    return sum(weight * x[..., i : i + 1] for i, weight in enumerate(LUMA))


def _moments(x: Float[Array, "B H W C"]) -> tuple[Float[Array, "B h wC"], Float[Array, "B h wC"]]:
    """Weighted mean and variance in each whole window, the two axes one after the other.

    The variance is the mean of the variances along one axis and the variance of the means along it. E[x^2] - E[x]^2
    would lose five of seven digits in even areas. Columns and channels are one axis, so that rows are long enough for
    the processor's vectors.
    """
    batch, height, width, channels = x.shape
    taps = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / SIGMA) ** 2)
    taps = [float(tap) for tap in taps / taps.sum()]
    mean = x.reshape(batch, height, width * channels)
    variance = jnp.zeros_like(mean)
    for axis, step in ((1, 1), (2, channels)):
        size = mean.shape[axis] - 2 * RADIUS * step
        means, variances = (
            [jax.lax.slice_in_dim(y, i * step, i * step + size, axis=axis) for i in range(len(taps))]
            for y in (mean, variance)
        )
        mean = sum(tap * part for tap, part in zip(taps, means, strict=True))
        spreads = [within + (part - mean) ** 2 for within, part in zip(variances, means, strict=True)]
        variance = sum(tap * spread for tap, spread in zip(taps, spreads, strict=True))
    return mean, variance


def _mean(x: Float[Array, "B ..."]) -> Float[Array, "B"]:
    """The mean of each image's numbers. Summed by halves: one by one, a million float32s lose two digits."""
    x = x.reshape(len(x), -1)
    count = x.shape[1]
    while x.shape[1] > 1:
        half = -(-x.shape[1] // 2)
        x = x[:, :half] + jnp.pad(x[:, half:], ((0, 0), (0, 2 * half - x.shape[1])))
    return x[:, 0] / count
