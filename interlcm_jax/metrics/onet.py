"""A perceptual distance whose weights come with an installation: of features of MTCNN's O-Net, which knows faces.

LPIPS' form (Zhang et al. 2018) without its learned weights: features of unit length at each position, their squared
difference. No published number is in it; it stands in where VGG's weights can't be had.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from interlcm_jax.faces.mtcnn import RefinementNetwork

EPSILON = 1e-5


def onet_distance(onet: RefinementNetwork, x: Float[Array, "B H W 3"], y: Float[Array, "B H W 3"]) -> Float[Array, "B"]:
    """The distance of each pair of images in [-1, 1], of any size from 48 x 48; 0 for equal ones.

    Args:
        onet: O-Net, of which the convolutions are taken (`faces.mtcnn.load_networks`).
        x: images.
        y: images to compare them with.
    """
    total = jnp.zeros(len(x))
    for layer in onet.layers:
        x, y = layer(x), layer(y)
        gap = _unit(x.astype(jnp.float32)) - _unit(y.astype(jnp.float32))
        total += (gap * gap).sum(-1).mean((1, 2))
    return total


def _unit(x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    # Under the root: the gradient of a length is infinite at 0.
    return x / jnp.sqrt((x * x).sum(-1, keepdims=True) + EPSILON)
