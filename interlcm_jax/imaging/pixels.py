"""Pixels as networks take them, floats in [-1, 1], and as files hold them, uint8."""

from typing import TypeVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

AnyArray = TypeVar("AnyArray", np.ndarray, Array)


def to_float(pixels: UInt8[AnyArray, "..."] | Float[AnyArray, "..."]) -> Float[AnyArray, "..."]:
    """uint8 as float32 in [-1, 1]; floats are taken to be in [-1, 1] already."""
    floats = pixels.astype(np.float32)
    return floats / 127.5 - 1 if pixels.dtype == np.uint8 else floats


def to_uint8(pixels: Float[AnyArray, "..."]) -> UInt8[AnyArray, "..."]:
    """Floats in [-1, 1] as uint8: clipped to that range, and rounded to the nearest level."""
    xp = np if isinstance(pixels, np.ndarray) else jnp
    return xp.round((xp.clip(pixels, -1, 1) + 1) * 127.5).astype(np.uint8)
