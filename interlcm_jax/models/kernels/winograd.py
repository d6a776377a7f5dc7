"""3x3 convolutions with a quarter of the multiplications: Winograd's F(4x4, 3x3) (Lavin and Gray, 2016), on CPU.

A 4x4 tile of the output needs 6x6 of the input. With tiles and kernel given as polynomials, by their values at six
points, the convolution is 36 products by element, which over all channels are 36 matrix products.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import AxisType
from jaxtyping import Array, Float

# It pays from so many tiles on (64: one image of 32x32; below, transforming the kernel costs more than it saves) and at
# these widths, in and out together (at 128 and 128 transforming the tiles does). Timed on two cores, 16x16 to 512x512.
MIN_TILES = 64
MIN_CHANNELS = 128
MIN_CHANNELS_TOGETHER = 384
# Tiles at a time: fewer don't keep the cores busy, more take memory.
CHUNK_TILES = 1024

# The points are 0, ±3/4, ±3/2 and infinity: a third of the error of the usual 0, ±1, ±2.
INPUT = (
    (81 / 64, 0, -45 / 16, 0, 1, 0),
    (0, -27 / 16, -9 / 4, 3 / 4, 1, 0),
    (0, 27 / 16, -9 / 4, -3 / 4, 1, 0),
    (0, -27 / 32, -9 / 16, 3 / 2, 1, 0),
    (0, 27 / 32, -9 / 16, -3 / 2, 1, 0),
    (0, 81 / 64, 0, -45 / 16, 0, 1),
)
KERNEL = (
    (64 / 81, 0, 0),
    (-128 / 243, -32 / 81, -8 / 27),
    (-128 / 243, 32 / 81, -8 / 27),
    (32 / 243, 16 / 81, 8 / 27),
    (32 / 243, -16 / 81, 8 / 27),
    (0, 0, 1),
)
OUTPUT = (
    (1, 1, 1, 1, 1, 0),
    (0, 3 / 4, -3 / 4, 3 / 2, -3 / 2, 0),
    (0, 9 / 16, 9 / 16, 9 / 4, 9 / 4, 0),
    (0, 27 / 64, -27 / 64, 27 / 8, -27 / 8, 1),
)
Matrix = tuple[tuple[float, ...], ...]


def conv_general_dilated(
    x: Array, kernel: Array, strides: Sequence[int], padding: Sequence[tuple[int, int]], **how: Any
) -> Array:
    """`jax.lax.conv_general_dilated` of (B, H, W, C) by HWIO, which goes by `conv3x3` where that is faster."""
    if tuple(strides) == (1, 1) and tuple(padding) == ((1, 1), (1, 1)) and fits(x, kernel):
        return conv3x3(x, kernel)
    return lax.conv_general_dilated(x, kernel, strides, padding, **how)


def fits(x: Float[Array, "B H W C"], kernel: Float[Array, "h w C D"]) -> bool:
    """Whether `conv3x3` is for this convolution: 3x3, float32, wide, and with enough tiles to be worth it.

    And all sharding is left to XLA: inside `shard_map` and under explicit axes arrays have types that it doesn't know.
    """
    batch, height, width, _ = x.shape
    tiles = batch * -(-height // 4) * -(-width // 4)
    widths = kernel.shape[2:]
    wide = min(widths) >= MIN_CHANNELS and sum(widths) >= MIN_CHANNELS_TOGETHER
    worth = kernel.shape[:2] == (3, 3) and wide and tiles >= MIN_TILES and x.dtype == kernel.dtype == jnp.float32
    return worth and all(kind == AxisType.Auto for kind in jax.sharding.get_abstract_mesh().axis_types)


def conv3x3(x: Float[Array, "B H W C"], kernel: Float[Array, "3 3 C D"]) -> Float[Array, "B H W D"]:
    """Convolution of stride 1 that keeps the size (padding 1): Winograd's on CPU, XLA's elsewhere."""
    return conv3x3_p.bind(x, kernel)


def direct(x: Float[Array, "B H W C"], kernel: Float[Array, "3 3 C D"]) -> Float[Array, "B H W D"]:
    """The same convolution as XLA has it."""
    return lax.conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC"))


# Jitted for its trace alone: the same shapes come again and again in a network.
@jax.jit
def winograd(x: Float[Array, "B H W C"], kernel: Float[Array, "3 3 C D"]) -> Float[Array, "B H W D"]:
    """The same convolution by F(4x4, 3x3); its rounding error is some ten times that of `direct`."""
    batch, height, width, _ = x.shape
    tiles_high, tiles_wide = -(-height // 4), -(-width // 4)
    rows = min(tiles_high, max(1, CHUNK_TILES // (batch * tiles_wide)))  # of tiles, at a time
    chunks = -(-tiles_high // rows)
    x = jnp.pad(x, ((0, 0), (0, 4 * rows * chunks - height), (0, 4 * tiles_wide - width), (0, 0)))
    kernel = transform_kernel(kernel, after=x)

    def convolve_chunk(i: Array, out: Array) -> Array:
        start = 4 * rows * i
        chunk = _convolve_tiles(_rows(x, start, 4 * rows), kernel)
        return lax.dynamic_update_slice_in_dim(out, chunk, start, 1)

    out = jnp.full((*x.shape[:3], kernel.shape[-1]), _zero(after=x))
    return lax.fori_loop(0, chunks, convolve_chunk, out)[:, :height, :width]


def transform_kernel(kernel: Float[Array, "3 3 C D"], after: Array) -> Float[Array, "36 C D"]:
    """The kernel's values at the points, computed once `after` is."""
    return _both_ways(KERNEL, kernel.reshape(9, -1), _zero(after)).reshape(36, *kernel.shape[2:])


def _rows(x: Float[Array, "B H W C"], start: Array, count: int) -> Float[Array, "B {count}+4 W+4 C"]:
    """`count` rows from `start`, with one before and three after, the same for columns; zeros beyond the edges.

    Padding a chunk at a time spares a padded copy of all of x.
    """
    length = min(count + 2, x.shape[1])
    first = jnp.clip(start - 1, 0, x.shape[1] - length)
    chunk = jnp.pad(lax.dynamic_slice_in_dim(x, first, length, 1), ((0, 0), (1, count + 4), (1, 3), (0, 0)))
    return lax.dynamic_slice_in_dim(chunk, start - first, count + 4, 1)


def _convolve_tiles(x: Float[Array, "B h w C"], kernel: Float[Array, "36 C D"]) -> Float[Array, "B h-4 w-4 D"]:
    batch, height, width, channels = x.shape
    high, wide = height // 4 - 1, width // 4 - 1
    by_rows = _combine(INPUT, _sixths(x.reshape(batch, high + 1, 4, width, channels), 1))
    tiles = _combine(INPUT, _sixths(by_rows.reshape(6, batch, high, wide + 1, 4, channels), 3), axis=1)
    products = lax.batch_matmul(tiles.reshape(36, -1, channels), kernel)
    out = _both_ways(OUTPUT, products.reshape(36, -1)).reshape(4, 4, batch, high, wide, -1)
    return out.transpose(2, 3, 0, 4, 1, 5).reshape(batch, 4 * high, 4 * wide, -1)


def _zero(after: Array) -> Float[Array, ""]:
    """A zero that isn't known before `after` is.

    XLA:CPU starts early whatever it can: without this it would hold the transformed kernels and the empty outputs of
    all of a network's convolutions at once, gigabytes of them.
    """
    zero = jnp.zeros((), after.dtype)
    return lax.clamp(zero, after[(0,) * after.ndim], zero)


def _both_ways(matrix: Matrix, x: Float[Array, "n N"], zero: Array | float = 0.0) -> Float[Array, "m N"]:
    """The matrix applied to the rows and to the columns of what the first axis holds."""
    return (jnp.asarray(np.kron(matrix, matrix), jnp.float32) + zero) @ x


def _sixths(x: Array, axis: int) -> list[Array]:
    """Of `axis` (tiles + 1) and the next (4): each tile's six rows, the last two of which are the next tile's first."""
    count = x.shape[axis] - 1
    starts = [(0, i) for i in range(4)] + [(1, 0), (1, 1)]
    parts = [lax.index_in_dim(x, i, axis + 1, keepdims=False) for _, i in starts]
    return [lax.slice_in_dim(p, s, s + count, axis=axis) for p, (s, _) in zip(parts, starts, strict=True)]


def _combine(matrix: Matrix, arrays: list[Array], axis: int = 0) -> Array:
    """The sums of `arrays` by each row of the matrix, stacked."""
    rows = [sum(array * float(factor) for factor, array in zip(row, arrays, strict=True) if factor) for row in matrix]
    # Kept apart from what follows: XLA would fuse a transform's two steps and repeat the first in the second.
    return lax.optimization_barrier(jnp.stack(rows, axis))


def _input_gradient(grad: Array, x: Any, kernel: Array) -> Array:
    """A convolution with the kernel turned round."""
    return conv3x3(grad, kernel[::-1, ::-1].swapaxes(2, 3))


def _kernel_gradient(grad: Array, x: Array, kernel: Any) -> Array:
    """XLA's."""
    return jax.linear_transpose(functools.partial(direct, x), kernel.aval)(grad)[0]


def _over_examples(arrays: tuple[Array, Array], axes: tuple[int | None, int | None]) -> tuple[Array, int]:
    """Under `vmap`: examples go into the batch; where each has a kernel of its own, by XLA's convolution."""
    x, kernel = arrays
    if axes[1] is not None:
        return jax.vmap(direct, axes)(x, kernel), 0
    x = jnp.moveaxis(x, axes[0], 0)
    out = conv3x3(x.reshape(-1, *x.shape[2:]), kernel)
    return out.reshape(*x.shape[:2], *out.shape[1:]), 0


# A primitive, since only as one can a function have transposes of its own and be differentiated forward, and again.
conv3x3_p = Primitive("conv3x3")
conv3x3_p.def_impl(jax.jit(conv3x3))
conv3x3_p.def_abstract_eval(lambda x, kernel: x.update(shape=(*x.shape[:3], kernel.shape[3])))
ad.defbilinear(conv3x3_p, _input_gradient, _kernel_gradient)
batching.primitive_batchers[conv3x3_p] = _over_examples
mlir.register_lowering(conv3x3_p, mlir.lower_fun(winograd, multiple_results=False), platform="cpu")
mlir.register_lowering(conv3x3_p, mlir.lower_fun(direct, multiple_results=False))
