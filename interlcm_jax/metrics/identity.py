"""Identity: the angle between two faces' embeddings, as the two families of papers measure it.

Deg is VQFR's (also PMRF's and OSDFace's), in degrees; IDA is RestoreFormer++'s (also DAEFR's), in radians. They aren't
one number in two units: the files of the network differ, and so does what it is shown.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from interlcm_jax.errors import InterLCMError
from interlcm_jax.imaging.opencv import linear_resize, read_gray
from interlcm_jax.imaging.resize import bilinear_resize
from interlcm_jax.metrics.arcface import ArcFace
from interlcm_jax.metrics.inputs import Images, both, pairs
from interlcm_jax.runtime.compiler_options import jit

# Deg's script leaves out of its mean what is nearer than this, degrees.
IDENTICAL = 1.0
# GFPGAN's weights for red, green and blue, which IDA's scripts apply to blue, green and red.
IDA_WEIGHTS = (0.1140, 0.5870, 0.2989)


@jit
def deg(network: ArcFace, restored: Images, hq: Images) -> Float[Array, "B"]:
    """Deg of each pair: the angle between restored face and original, degrees from 0 to 180; lower is better.

    As VQFR's script: whole aligned faces, gray as OpenCV reads them from PNG files, resized by OpenCV to 128 pixels,
    in [-1, 1]. The script's mean leaves out near-equal pairs: see `mean_deg`.

    Args:
        network: with the weights of `resnet18_110.pth` (see `arcface.load`).
        restored: RGB, uint8, or floats in [-1, 1], which are rounded to 8 bits first.
        hq: the originals, equally many.

    Raises:
        InterLCMError: they aren't images, or not equally many.
    """
    return jnp.rad2deg(angle(*_embeddings(network, restored, hq, _deg_input)))


@jit
def similarity(network: ArcFace, restored: Images, hq: Images) -> Float[Array, "B"]:
    """The cosine of Deg's angle, -1 to 1: higher is better. Arguments as `deg`'s.

    Papers call this or `deg` IDS; the network of CodeFormer's IDS isn't published.
    """
    return jnp.cos(angle(*_embeddings(network, restored, hq, _deg_input)))


@jit
def ida(network: ArcFace, restored: Images, hq: Images) -> Float[Array, "B"]:
    """IDA (also IDD) of each pair: the angle between restored face and original, radians from 0 to pi; lower is better.

    As RestoreFormer++'s and DAEFR's scripts: in [0, 1], gray by weights meant for RGB on BGR, resized by PyTorch to 128
    pixels. Arguments as `deg`'s, with the weights of `arcface_resnet18.pth`.
    """
    return angle(*_embeddings(network, restored, hq, _ida_input))


def mean_deg(degrees: Float[np.ndarray, " N"]) -> tuple[float, int]:
    """VQFR's mean of `deg` over a set, which leaves out pairs below `IDENTICAL`, and how many these are.

    Raises:
        InterLCMError: none is left.
    """
    kept = np.asarray(degrees, np.float64)
    kept = kept[~(kept < IDENTICAL)]
    if not len(kept):
        raise InterLCMError(f"Deg's mean leaves out pairs below {IDENTICAL:g} degree, and all {len(degrees)} are")
    return float(kept.mean()), len(degrees) - len(kept)


def _embeddings(
    network: ArcFace, restored: Images, hq: Images, prepare: Callable[..., Float[Array, "B S S 1"]]
) -> tuple[Float[Array, "B D"], Float[Array, "B D"]]:
    size = network.config.image_size
    inputs = (prepare(images, size) for images in pairs(restored, hq))
    with jax.default_matmul_precision("highest"):
        return both(network, *inputs)


def _deg_input(pixels: UInt8[Array, "B H W 3"], size: int) -> Float[Array, "B S S 1"]:
    return (linear_resize(read_gray(pixels), (size, size)).astype(jnp.float32) - 127.5) / 127.5


def _ida_input(pixels: UInt8[Array, "B H W 3"], size: int) -> Float[Array, "B S S 1"]:
    x = pixels.astype(jnp.float32) / 255
    gray = sum(weight * x[..., i : i + 1] for i, weight in enumerate(IDA_WEIGHTS))
    return bilinear_resize(gray, (size, size))


def angle(a: Float[Array, "B D"], b: Float[Array, "B D"]) -> Float[Array, "B"]:
    """The angle between vectors, radians; the arc cosine would lose half of the digits at small angles."""
    a, b = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (a, b))
    return 2 * jnp.arctan2(jnp.linalg.norm(a - b, axis=-1), jnp.linalg.norm(a + b, axis=-1))
