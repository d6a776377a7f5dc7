"""LMD: how far a restored face's landmarks lie from the original's, by the network FAN, as in VQFR's script."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from interlcm_jax.imaging.opencv import linear_resize
from interlcm_jax.metrics.fan import FAN
from interlcm_jax.metrics.inputs import Images, both, levels, pairs
from interlcm_jax.runtime.compiler_options import jit


@jit
def landmarks(network: FAN, images: Images) -> Float[Array, "B N 2"]:
    """The landmarks of aligned faces, (x, y) in pixels of the images, in steps of a quarter of 1/64 of their size.

    Args:
        network: the network (see `fan.load`).
        images: RGB of any size, uint8, or floats in [-1, 1], which are rounded to 8 bits first.

    Raises:
        InterLCMError: they aren't images.
    """
    return _points(network, _input(network, images)) * _scale(network, images)


@jit
def lmd(network: FAN, restored: Images, hq: Images) -> Float[Array, "B"]:
    """LMD of each pair: the mean distance of the landmarks, in pixels of the images (512 in papers); lower is better.

    Args:
        network: the network (see `fan.load`).
        restored: RGB, uint8, or floats in [-1, 1], which are rounded to 8 bits first.
        hq: the originals, equally many.

    Raises:
        InterLCMError: they aren't images, or not equally many.
    """
    inputs = (_input(network, images) for images in pairs(restored, hq))
    first, second = both(functools.partial(_points, network), *inputs)
    first, second = first * _scale(network, restored), second * _scale(network, hq)
    return jnp.linalg.norm(first - second, axis=-1).mean(axis=-1)


def peaks(heatmaps: Float[Array, "B h w N"]) -> Float[Array, "B N 2"]:
    """Where each heat map is largest, (x, y) in cells: a quarter cell from its middle towards the larger neighbor.

    As VQFR's and facexlib's `calculate_points`, image by image: neighbors are looked for in the row-by-row list of
    cells, so the last cell of a row neighbors the first of the next; and where any of an image's peaks has no
    neighbor below (above), all of the image's peaks are compared with the last (first) cell instead.
    """
    _, height, width, _ = heatmaps.shape
    cells = heatmaps.transpose(0, 3, 1, 2).reshape(heatmaps.shape[0], heatmaps.shape[3], -1)
    last = height * width - 1
    index = jnp.argmax(cells, axis=-1)

    def value(at: Array) -> Array:
        return jnp.take_along_axis(cells, at[..., None], axis=-1)[..., 0]

    # The script can't look beyond the last cell, and fails; what is before the first is the last.
    right, left = jnp.minimum(index + 1, last), (index - 1) % (last + 1)
    below = jnp.where(jnp.any(index + width > last, axis=-1, keepdims=True), last, index + width)
    above = jnp.where(jnp.any(index - width <= 0, axis=-1, keepdims=True), 0, index - width)
    towards = jnp.stack([value(right) - value(left), value(below) - value(above)], axis=-1)
    cell = jnp.stack([index % width, index // width], axis=-1).astype(jnp.float32)
    return cell + 0.25 * jnp.sign(towards) + 0.5


def _input(network: FAN, images: Images) -> Float[Array, "B S S 3"]:
    """The faces as the script resizes them, in [0, 1]."""
    size = network.config.image_size
    return linear_resize(levels(images), (size, size)).astype(jnp.float32) / 255


def _points(network: FAN, x: Float[Array, "B S S 3"]) -> Float[Array, "B N 2"]:
    """The landmarks in cells of the heat maps; the last of these, the outline's, has none."""
    with jax.default_matmul_precision("highest"):
        return peaks(network(x)[..., :-1])


def _scale(network: FAN, images: Images) -> Float[Array, "1 1 2"]:
    """Pixels of the images for each cell of the heat maps, in width and height."""
    height, width = images.shape[1:3]
    cells = network.config.heatmap_size
    return jnp.array([[[width / cells, height / cells]]], jnp.float32)
