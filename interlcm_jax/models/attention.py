"""Scaled dot-product attention: one function that picks the implementation for the platform it is lowered for."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# Above this many scores for one example's heads, XLA:CPU is slower to write and read them all than to go by
# chunks of queries; below it one pass wins. Found by timing 64x64 and 32x32 self-attention of SD 1.5.
CHUNK_ABOVE_SCORES = 2**20
# A flash kernel pays from here: at 256 tokens and below the scores are too small to matter.
FLASH_FROM_TOKENS = 1024
# cuDNN's limit for head width in the backward pass on every GPU it supports.
CUDNN_MAX_HEAD_DIM = 128


def dot_product_attention(
    query: Float[Array, "B Tq N K"], key: Float[Array, "B Tk N K"], value: Float[Array, "B Tk N K"]
) -> Float[Array, "B Tq N K"]:
    """softmax(query · keyᵀ / sqrt(K)) · value, with the softmax in float32.

    Small problems take plain attention. Large ones take query-chunked attention on CPU, cuDNN's flash attention on
    GPU (half precision only) and Pallas' flash kernel on TPU; all agree within rounding. The choice is made when the
    program is lowered, so a program compiled on one platform for another gets the other's kernel.
    """
    scores = query.shape[1] * key.shape[1] * query.shape[2]
    if scores <= CHUNK_ABOVE_SCORES:
        return plain_attention(query, key, value)
    branches = {"default": chunked_attention}
    if min(query.shape[1], key.shape[1]) >= FLASH_FROM_TOKENS and query.shape[1] % 128 == key.shape[1] % 128 == 0:
        branches["tpu"] = flash_attention
    if _cudnn_fits(query):
        branches["cuda"] = cudnn_attention
    if len(branches) == 1:
        return chunked_attention(query, key, value)
    # Differentiating through the choice would keep every branch's residuals; recomputing keeps only the inputs,
    # which is what a flash kernel does anyway.
    choose = functools.partial(lax.platform_dependent, **branches)
    return jax.checkpoint(choose)(query, key, value)


def plain_attention(
    query: Float[Array, "B Tq N K"], key: Float[Array, "B Tk N K"], value: Float[Array, "B Tk N K"]
) -> Float[Array, "B Tq N K"]:
    """Attention that materialises all scores, (B, N, Tq, Tk)."""
    # Not `jax.nn.dot_product_attention`: under strict dtype promotion it refuses half precision.
    scores = jnp.einsum("bqnk,btnk->bnqt", query, key, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores * query.shape[-1] ** -0.5)
    return jnp.einsum("bnqt,btnk->bqnk", weights.astype(value.dtype), value)


def chunked_attention(
    query: Float[Array, "B Tq N K"], key: Float[Array, "B Tk N K"], value: Float[Array, "B Tk N K"]
) -> Float[Array, "B Tq N K"]:
    """Attention over one chunk of queries at a time, so that a chunk's scores stay in cache.

    Each chunk's softmax sees all keys, so nothing is approximated. The last chunk may be short.
    """
    batch, tokens, heads, width = query.shape
    chunk = max(1, min(tokens, CHUNK_ABOVE_SCORES // (key.shape[1] * heads)))
    whole = tokens // chunk
    # The scores of a chunk are recomputed in the backward pass, or all of them would be kept after all.
    attend = jax.checkpoint(lambda q: plain_attention(q, key, value))
    chunks = query[:, : whole * chunk].reshape(batch, whole, chunk, heads, width).swapaxes(0, 1)
    out = lax.map(attend, chunks).swapaxes(0, 1).reshape(batch, whole * chunk, heads, width)
    return out if whole * chunk == tokens else jnp.concatenate([out, attend(query[:, whole * chunk :])], axis=1)


def flash_attention(
    query: Float[Array, "B Tq N K"], key: Float[Array, "B Tk N K"], value: Float[Array, "B Tk N K"]
) -> Float[Array, "B Tq N K"]:
    """JAX's Pallas flash attention for TPU; token counts must be multiples of 128."""
    from jax.experimental.pallas.ops.tpu import flash_attention as pallas

    heads_first = (x.swapaxes(1, 2) for x in (query, key, value))
    return pallas.flash_attention(*heads_first, sm_scale=query.shape[-1] ** -0.5).swapaxes(1, 2)


def cudnn_attention(
    query: Float[Array, "B Tq N K"], key: Float[Array, "B Tk N K"], value: Float[Array, "B Tk N K"]
) -> Float[Array, "B Tq N K"]:
    """cuDNN's flash attention; float16 or bfloat16 only."""
    return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")


def _cudnn_fits(query: Array) -> bool:
    """Whether cuDNN's kernel takes this problem. Its checks run while tracing, so a GPU must be there."""
    width = query.shape[-1]
    half = query.dtype in (jnp.float16, jnp.bfloat16)
    return half and width % 8 == 0 and width <= CUDNN_MAX_HEAD_DIM and jax.default_backend() == "gpu"
