"""How sharp an image is, by itself: the variance of its Laplacian."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

LUMA = (0.299, 0.587, 0.114)  # BT.601's, of R, G and B


def laplacian_variance(images: UInt8[Array | np.ndarray, "B H W 3"]) -> Float[Array | np.ndarray, "B"]:
    """Variance of the Laplacian of the luma in levels of 255, the border left out (Pech-Pacheco et al. 2000).

    Blurring lowers it, noise raises it: it is compared with the original's, neither more nor less being better.

    Args:
        images: at least 3 pixels a side.
    """
    luma = sum(weight * images[..., i].astype(jnp.float32) for i, weight in enumerate(LUMA))
    center = luma[:, 1:-1, 1:-1]
    around = luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1] + luma[:, 1:-1, :-2] + luma[:, 1:-1, 2:]
    return (around - 4 * center).var((1, 2))
