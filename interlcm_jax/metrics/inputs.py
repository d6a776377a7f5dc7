"""What metrics with networks take: images in 8 bits, as the field's scripts read them from files."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from interlcm_jax.errors import InterLCMError
from interlcm_jax.imaging.pixels import to_uint8

Images = Float[Array, "B H W 3"] | UInt8[Array, "B H W 3"]


def levels(images: Images) -> UInt8[Array, "B H W 3"]:
    """The images in 8 bits, as they would be saved: floats in [-1, 1] are clipped and rounded.

    Raises:
        InterLCMError: they aren't RGB images, or neither uint8 nor floats.
    """
    floating = jnp.issubdtype(images.dtype, jnp.floating)
    if images.ndim != 4 or images.shape[-1] != 3 or not (floating or images.dtype == jnp.uint8):
        raise InterLCMError(
            f"images must be (B, H, W, 3), uint8 or floats in [-1, 1], but are {images.dtype} {images.shape}"
        )
    if not floating:
        return images
    return to_uint8(images.astype(jnp.float32))


def pairs(restored: Images, hq: Images) -> tuple[UInt8[Array, "B H W 3"], UInt8[Array, "B H W 3"]]:
    """`levels` of restored images and of their originals.

    Raises:
        InterLCMError: as `levels`, or there are more of one than of the other.
    """
    if restored.shape[0] != hq.shape[0]:
        raise InterLCMError(f"{restored.shape[0]} restored images, but {hq.shape[0]} originals to compare them with")
    return levels(restored), levels(hq)


def both(
    network: Callable[[Float[Array, "B ..."]], Float[Array, "B ..."]],
    first: Float[Array, "B ..."],
    second: Float[Array, "B ..."],
) -> tuple[Float[Array, "B ..."], Float[Array, "B ..."]]:
    """What a network gives for two batches: compiled once for both, and a sharded batch stays on its devices."""
    x = jnp.stack([first, second], axis=1)
    out = network(x.reshape(-1, *x.shape[2:]))
    out = out.reshape(-1, 2, *out.shape[1:])
    return out[:, 0], out[:, 1]
