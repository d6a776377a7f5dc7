"""An image as MUSIQ sees it: patches at three scales, each with its place on one grid that all scales share.

Resizing is pyiqa's, bicubic without antialiasing, since the numbers in papers are. Google's own code takes TensorFlow's
Gaussian kernel of deviation 0.5 source pixels, not antialiased either. Between the two, photos of 512 pixels differ by
0.7 to 1.5 levels of 255 on average, at either scale, and by up to 45 at edges; what that does to scores only the
published weights can tell.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from interlcm_jax.errors import InterLCMError
from interlcm_jax.imaging.pixels import to_float
from interlcm_jax.imaging.resize import bicubic_resize
from interlcm_jax.metrics.musiq_network import MUSIQConfig
from interlcm_jax.runtime.compiler_options import jit


class Patches(NamedTuple):
    """What the network takes, see `MUSIQ.__call__`."""

    pixels: Float[Array, "B L P P 3"]
    positions: Int[Array, "B L"]
    scales: Int[Array, "B L"]
    mask: Bool[Array, "B L"]


@jit(static_argnames=("config", "length"))
def multiscale_patches(
    images: Float[Array, "B H W 3"] | UInt8[Array, "B H W 3"], config: MUSIQConfig, length: int | None = None
) -> Patches:
    """Cuts images of one size into patches, row by row, the smallest scale first and the native one last.

    Args:
        images: RGB, uint8 or floats in [-1, 1].
        config: the network's sizes.
        length: L: the patches are followed by empty, masked ones, so that images of several sizes fit one program;
            None is as many as there are.

    Raises:
        InterLCMError: there are more patches than `length`, or the images are too long and narrow to be resized.
    """
    count = num_patches(*images.shape[1:3], config)
    length = count if length is None else length
    if count > length:
        height, width = images.shape[1:3]
        raise InterLCMError(f"MUSIQ cuts an image of {width}x{height} into {count} patches, but at most {length} fit")
    x = to_float(images)
    pixels, positions, scales = [], [], []
    for scale, size in enumerate(scale_sizes(*images.shape[1:3], config)):
        pixels.append(cut(x if size == x.shape[1:3] else bicubic_resize(x, size), config.patch_size))
        positions.append(hashed_positions(*_rows_and_columns(size, config.patch_size), config.grid_size))
        scales.append(np.full(len(positions[-1]), scale, np.int32))
    empty = (0, length - count)
    alike = (np.pad(np.concatenate(a), empty) for a in (positions, scales, [np.ones(count, bool)]))
    return Patches(
        jnp.pad(jnp.concatenate(pixels, axis=1), ((0, 0), empty, (0, 0), (0, 0), (0, 0))),
        *(jnp.broadcast_to(jnp.asarray(a), (len(images), length)) for a in alike),
    )


def num_patches(height: int, width: int, config: MUSIQConfig) -> int:
    """How many patches all scales of an image make: 449 for one of 512x512 pixels.

    Raises:
        InterLCMError: the image is too long and narrow to be resized.
    """
    sizes = scale_sizes(height, width, config)
    return sum(rows * columns for rows, columns in (_rows_and_columns(size, config.patch_size) for size in sizes))


def scale_sizes(height: int, width: int, config: MUSIQConfig) -> list[tuple[int, int]]:
    """Height and width of an image at each scale, the native one last; smaller images are enlarged.

    Raises:
        InterLCMError: one would be empty.
    """
    sizes = []
    for longer in config.longer_sides:
        ratio = longer / max(height, width)
        sizes.append((round(height * ratio), round(width * ratio)))
    if any(0 in size for size in sizes):
        raise InterLCMError(f"an image of {width}x{height} pixels is too long and narrow for MUSIQ")
    return [*sizes, (height, width)]


def cut(images: Float[Array, "B H W 3"], patch_size: int) -> Float[Array, "B L P P 3"]:
    """Patches side by side. Zeros, which are mid-gray, fill up the border; where odd, more of them right and below."""
    batch, height, width, channels = images.shape
    rows, columns = _rows_and_columns((height, width), patch_size)
    missing = (rows * patch_size - height, columns * patch_size - width)
    padded = jnp.pad(images, ((0, 0), *((m // 2, m - m // 2) for m in missing), (0, 0)))
    grid = padded.reshape(batch, rows, patch_size, columns, patch_size, channels)
    return grid.swapaxes(2, 3).reshape(batch, rows * columns, patch_size, patch_size, channels)


def hashed_positions(rows: int, columns: int, grid_size: int) -> Int[np.ndarray, "L"]:
    """Where on the grid each patch lies (section 3.3): its row and column, scaled to the grid and rounded down."""
    return (_on_grid(rows, grid_size)[:, None] * grid_size + _on_grid(columns, grid_size)).reshape(-1)


def _on_grid(count: int, grid_size: int) -> Int[np.ndarray, "count"]:
    # Both codes resize a row of numbers to the nearest, in float32: the ratio is rounded before it multiplies.
    ratio = np.float32(grid_size) / np.float32(count)
    return np.minimum(np.floor(np.arange(count, dtype=np.float32) * ratio), grid_size - 1).astype(np.int32)


def _rows_and_columns(size: tuple[int, int], patch_size: int) -> tuple[int, int]:
    return -(-size[0] // patch_size), -(-size[1] // patch_size)
