"""The two sinusoidal embeddings of an LCM UNet and the MLP that joins them."""

from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from interlcm_jax.models.layers import Init, Linear


def timestep_embedding(timesteps: Float[Array | np.ndarray, "B"], dim: int) -> Float[Array, "B dim"]:
    """Sinusoids of the timestep: cosines first, then sines, frequencies 10000^(-i / (dim / 2)).

    This is diffusers' `Timesteps` with `flip_sin_to_cos=True` and `downscale_freq_shift=0`, as SD 1.5 sets it.
    """
    half = dim // 2
    exponents = np.float32(-np.log(10000.0)) * np.arange(half, dtype=np.float32) / np.float32(half)
    angles = _angles(timesteps, exponents)
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def guidance_embedding(guidance: Float[Array, "B"], dim: int) -> Float[Array, "B dim"]:
    """Sinusoids of an LCM's guidance w = scale - 1: sines first, then cosines, of 1000 · w.

    Frequencies are 10000^(-i / (dim / 2 - 1)) (Luo et al. 2023, "Latent Consistency Models", guidance embedding).
    """
    half = dim // 2
    exponents = np.arange(half, dtype=np.float32) * -(np.float32(np.log(10000.0)) / np.float32(half - 1))
    angles = _angles(1000.0 * guidance, exponents)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def _angles(
    x: Float[Array | np.ndarray, "B"], exponents: Float[np.ndarray, " half"]
) -> Float[Array | np.ndarray, "B half"]:
    # x reaches 7000, so the last bit of a frequency is four digits of its sine: the exponents are rounded in float32
    # just where diffusers rounds them, and the power is taken in float64 and rounded once.
    frequencies = np.exp(exponents.astype(np.float64)).astype(np.float32)
    return x.astype(jnp.float32)[:, None] * frequencies[None]


class TimestepEmbedding(nnx.Module):
    """MLP over the timestep's sinusoids, with an optional bias-free projection of the guidance embedding added."""

    def __init__(self, in_channels: int, embed_dim: int, cond_proj_dim: int | None, **init: Unpack[Init]):
        self.linear_1 = Linear(in_channels, embed_dim, **init)
        self.linear_2 = Linear(embed_dim, embed_dim, **init)
        if cond_proj_dim is not None:
            self.cond_proj = Linear(cond_proj_dim, in_channels, use_bias=False, **init)

    def __call__(self, emb: Float[Array, "B C"], cond: Float[Array, "B G"] | None = None) -> Float[Array, "B E"]:
        """Joins timestep and guidance embedding."""
        if cond is not None:
            emb = emb + self.cond_proj(cond)
        return self.linear_2(jax.nn.silu(self.linear_1(emb)))
