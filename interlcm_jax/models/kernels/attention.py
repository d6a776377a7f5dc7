"""Scaled dot-product attention: one function that picks the implementation for the platform it is lowered for."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

# Not where it is used: imported while JAX (0.11 and later) traces, it makes the next call trace and compile again.
from jax.experimental.pallas.ops.tpu import flash_attention as pallas
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array, Float

# A CPU wants the scores it works on in its cache: above this many for one example, one pass over all of them loses
# to chunks of this many. Timed on 64x64 and 32x32 self-attention of SD 1.5 and on the VAE's; 2**18 to 2**20 are close.
CHUNK_ABOVE_SCORES = 2**20
# A CPU compares so many of a row's scores at once for the largest.
LANES = 128
# Elsewhere chunks only bound memory, to 512 MiB of scores for one example: all that SD 1.5 has at 512x512 pixels.
ACCELERATOR_CHUNK_SCORES = 2**27
# A flash kernel pays from here: at 256 tokens and below the scores are too small to matter.
FLASH_FROM_TOKENS = 1024
# cuDNN's limit for head width in the backward pass on every GPU it supports.
CUDNN_MAX_HEAD_DIM = 128

# Whether programs traced in this context may hold Pallas' and cuDNN's kernels, which have a first backward pass and no
# other derivative. None: where JAX's default device is one that they are for. `with flash_kernel(False): jax.jvp(...)`
# differentiates any way on a GPU or TPU; `with flash_kernel(True)` a machine without a TPU compiles for one.
flash_kernel = jax.make_user_context(None)

# (B, Tq, K) queries, (B, K, Tk) keys, (B, Tk, K) values of one head -> (B, Tq, K)
Attend = Callable[[Array, Array, Array], Array]


def dot_product_attention(
    query: Float[Array, "B Tq N K"], key: Float[Array, "B Tk N K"], value: Float[Array, "B Tk N K"]
) -> Float[Array, "B Tq N K"]:
    """softmax(query · keyᵀ / sqrt(K)) · value, with the softmax in float32.

    Small problems take plain attention. Large ones take chunked attention on CPU, cuDNN's flash attention on GPU
    (half precision only) and Pallas' flash kernel on TPU; all agree within rounding. The choice is made when the
    program is lowered. The two kernels are left to it by `flash_kernel`; without them everything is differentiable any
    number of times, forward and backward. cuDNN's only a machine with a GPU can trace, whatever the context.

    On several TPU cores the kernel must know how the batch is split: set the mesh (`jax.set_mesh`), all of whose axes
    then split the batch. A program exported for several platforms at once is traced under `flash_kernel(False)`: JAX
    lowers each branch of the choice for every platform.
    """
    scores = query.shape[1] * key.shape[1] * query.shape[2]
    if scores <= CHUNK_ABOVE_SCORES:
        return plain_attention(query, key, value)
    bounded = functools.partial(chunked_attention, chunk_scores=ACCELERATOR_CHUNK_SCORES)
    on_cpu = functools.partial(chunked_attention, attend=_attend_on_cpu)
    branches = {"cpu": on_cpu, "default": plain_attention if scores <= ACCELERATOR_CHUNK_SCORES else bounded}
    if _flash_fits(query, key):
        branches["tpu"] = flash_attention
    if _cudnn_fits(query):
        branches["cuda"] = cudnn_attention
    # Differentiating through the choice would keep every branch's residuals; recomputing keeps only the inputs,
    # which is what a flash kernel does anyway.
    choose = functools.partial(lax.platform_dependent, **branches)
    return jax.checkpoint(choose)(query, key, value)


def plain_attention(
    query: Float[Array, "B Tq N K"], key: Float[Array, "B Tk N K"], value: Float[Array, "B Tk N K"]
) -> Float[Array, "B Tq N K"]:
    """Attention that materializes all scores, (B, N, Tq, Tk)."""
    # Not `jax.nn.dot_product_attention`: under strict dtype promotion it refuses half precision.
    scores = jnp.einsum("bqnk,btnk->bnqt", query, key, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores * query.shape[-1] ** -0.5)
    return jnp.einsum("bnqt,btnk->bqnk", weights.astype(value.dtype), value)


def chunked_attention(
    query: Float[Array, "B Tq N K"],
    key: Float[Array, "B Tk N K"],
    value: Float[Array, "B Tk N K"],
    *,
    chunk_scores: int | None = None,
    attend: Attend | None = None,
) -> Float[Array, "B Tq N K"]:
    """Attention that materializes at most `chunk_scores` scores of each example (`CHUNK_ABOVE_SCORES` by default).

    It takes as many heads at a time as fit; where not even one does, as many of its queries as fit. Each query sees
    all keys, so nothing is approximated. The batch is never cut: it may be spread over devices. `attend` is what is
    done with a chunk, by default plain attention.
    """
    limit = CHUNK_ABOVE_SCORES if chunk_scores is None else chunk_scores
    heads = max(1, limit // (query.shape[1] * key.shape[1]))
    queries = max(1, limit // (key.shape[1] * heads))
    heads_first = tuple(x.transpose(2, 0, 1, 3) for x in (query, key, value))
    attend_head = functools.partial(_attend_by_queries, attend or _attend, queries)
    return lax.map(lambda head: attend_head(*head), heads_first, batch_size=heads).transpose(1, 2, 0, 3)


def _attend_by_queries(
    attend_to: Attend,
    chunk: int,
    query: Float[Array, "B Tq K"],
    key: Float[Array, "B Tk K"],
    value: Float[Array, "B Tk K"],
) -> Float[Array, "B Tq K"]:
    """Attention of one head, `chunk` queries at a time; the last chunk may be short."""
    batch, tokens, width = query.shape
    transposed = key.swapaxes(1, 2)
    # The scores of a chunk are recomputed in the backward pass, or all of them would be kept after all.
    attend = jax.checkpoint(lambda query: attend_to(query, transposed, value))

    if chunk >= tokens:
        return attend(query)
    whole = tokens // chunk * chunk
    chunks = query[:, :whole].reshape(batch, -1, chunk, width).swapaxes(0, 1)
    out = lax.map(attend, chunks).swapaxes(0, 1).reshape(batch, whole, width)
    return out if whole == tokens else jnp.concatenate([out, attend(query[:, whole:])], axis=1)


def _attend(
    query: Float[Array, "B Tq K"], key: Float[Array, "B K Tk"], value: Float[Array, "B Tk K"]
) -> Float[Array, "B Tq K"]:
    scores = jnp.einsum("bqk,bkt->bqt", query, key, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores * query.shape[-1] ** -0.5)
    return jnp.einsum("bqt,btk->bqk", weights.astype(value.dtype), value)


def _attend_on_cpu(
    query: Float[Array, "B Tq K"], key: Float[Array, "B K Tk"], value: Float[Array, "B Tk K"]
) -> Float[Array, "B Tq K"]:
    """`_attend` in little more than half the time for float32; bfloat16 is left to XLA and oneDNN.

    The product with the values adds up the weights too, as an average of ones, and what is divided are averages and not
    weights. Of long rows XLA:CPU finds the largest score one by one, where `LANES` at once are left to compare.
    """
    if value.dtype != jnp.float32:
        return _attend(query, key, value)
    scores = jnp.einsum("bqk,bkt->bqt", query * query.shape[-1] ** -0.5, key)
    largest = lax.stop_gradient(scores)
    if scores.shape[-1] % LANES == 0:
        # Kept apart, or XLA would make one maximum of the two.
        largest = lax.optimization_barrier(largest.reshape(*scores.shape[:-1], -1, LANES).max(-2))
    weights = jnp.exp(scores - largest.max(-1, keepdims=True))
    sums = jnp.einsum("bqt,btk->bqk", weights, jnp.concatenate([value, jnp.ones_like(value[..., :1])], axis=-1))
    return sums[..., :-1] / sums[..., -1:]


def flash_attention(
    query: Float[Array, "B Tq N K"], key: Float[Array, "B Tk N K"], value: Float[Array, "B Tk N K"]
) -> Float[Array, "B Tq N K"]:
    """JAX's Pallas flash attention for TPU; `_flash_fits` tells what it takes."""
    # The largest blocks whose backward pass fits the 16 MiB of vector memory of a TPU v4, the smallest of all.
    largest = 512 if query.shape[-1] <= 128 else 256
    q, k = (math.gcd(x.shape[1], largest) for x in (query, key))
    blocks = pallas.BlockSizes(
        block_q=q,
        block_k_major=k,
        block_k=k,
        block_b=1,
        block_q_major_dkv=q,
        block_k_major_dkv=k,
        block_k_dkv=k,
        block_q_dkv=q,
        block_k_major_dq=k,
        block_k_dq=k,
        block_q_dq=q,
    )
    kernel = functools.partial(pallas.flash_attention, sm_scale=query.shape[-1] ** -0.5, block_sizes=blocks)
    heads_first = (x.swapaxes(1, 2) for x in (query, key, value))
    return _over_batch(kernel)(*heads_first).swapaxes(1, 2)


def _over_batch(kernel):
    """The kernel with its batch split over the mesh in context, if any: XLA can't split a Mosaic kernel itself."""
    axes = _automatic_axes()
    if not axes:
        return kernel
    spec = PartitionSpec(axes)
    return jax.shard_map(kernel, in_specs=(spec, spec, spec), out_specs=spec, check_vma=False)


def _automatic_axes() -> tuple[str, ...]:
    mesh = jax.sharding.get_abstract_mesh()
    return tuple(n for n, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == AxisType.Auto)


def _kernel_wanted(platform: str) -> bool:
    wanted = flash_kernel.value
    return jax.default_backend() == platform if wanted is None else wanted


def _flash_fits(query: Array, key: Array) -> bool:
    """Whether the flash kernel takes this problem: whole blocks of tokens, head widths it can tile, a split batch."""
    mesh = jax.sharding.get_abstract_mesh()
    cores = math.prod(mesh.shape[axis] for axis in _automatic_axes())
    tokens, width = (query.shape[1], key.shape[1]), query.shape[-1]
    tiled = all(t % 128 == 0 for t in tokens) and (width <= 128 or width % 128 == 0)
    fits = tiled and min(tokens) >= FLASH_FROM_TOKENS and query.shape[0] % cores == 0
    return fits and _kernel_wanted("tpu") and not _varying_axes_checked()


def _varying_axes_checked() -> bool:
    """Whether `jax.shard_map(check_vma=True)` traces this, which refuses Pallas' kernel: it names no such axes."""
    axes = jax.sharding.get_abstract_mesh().manual_axes
    return bool(axes) and jax.typeof(lax.axis_index(axes)) != jax.typeof(jnp.zeros((), jnp.int32))


def cudnn_attention(
    query: Float[Array, "B Tq N K"], key: Float[Array, "B Tk N K"], value: Float[Array, "B Tk N K"]
) -> Float[Array, "B Tq N K"]:
    """cuDNN's flash attention; float16 or bfloat16 only."""
    return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")


def _cudnn_fits(query: Array) -> bool:
    """Whether cuDNN's kernel takes this problem. Its checks run while tracing, so a GPU must be there."""
    width = query.shape[-1]
    half = query.dtype in (jnp.float16, jnp.bfloat16)
    taken = half and width % 8 == 0 and width <= CUDNN_MAX_HEAD_DIM
    return taken and jax.default_backend() == "gpu" and _kernel_wanted("gpu")
