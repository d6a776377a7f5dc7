"""Leaf layers shared by the networks: explicit padding, explicit epsilon, norms in float32."""

import math
from collections.abc import Callable, Collection, Sequence
from typing import TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from interlcm_jax.errors import InterLCMError
from interlcm_jax.models.kernels import winograd
from interlcm_jax.models.kernels.reductions import mean_over_pixels


class Init(TypedDict):
    """What every module passes down to its layers: compute dtype, storage dtype, random streams."""

    dtype: DTypeLike
    param_dtype: DTypeLike
    rngs: nnx.Rngs


class Conv(nnx.Conv):
    """2-D convolution over (B, H, W, C), kernel HWIO; `padding` is one number all round, as in PyTorch.

    `padding` defaults to what keeps the size at stride 1; `zero_init` starts the kernel at zero.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        padding: int | None = None,
        use_bias: bool = True,
        zero_init: bool = False,
        **init: Unpack[Init],
    ):
        zeros = {"kernel_init": nnx.initializers.zeros} if zero_init else {}
        pad = kernel_size // 2 if padding is None else padding
        super().__init__(
            in_channels,
            out_channels,
            (kernel_size, kernel_size),
            strides=stride,
            padding=((pad, pad), (pad, pad)),
            use_bias=use_bias,
            conv_general_dilated=winograd.conv_general_dilated,
            **zeros,
            **init,
        )

    # Of its own, here and in `Linear`: `nnx.capture` takes the outputs of methods that a class itself defines.
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """Convolves, and adds the bias."""
        return super().__call__(x)


class Linear(nnx.Linear):
    """Dense layer over the last axis, kernel (in, out)."""

    def __init__(self, in_features: int, out_features: int, *, use_bias: bool = True, **init: Unpack[Init]):
        super().__init__(in_features, out_features, use_bias=use_bias, **init)

    def __call__(self, x: Float[Array, "... C"]) -> Float[Array, "... D"]:
        """Multiplies by the kernel, and adds the bias."""
        return super().__call__(x)


class GroupNorm(nnx.GroupNorm):
    """Group normalization over (B, ..., C), computed in float32 whatever the compute dtype.

    `epsilon` has no default: the networks use 1e-5 and 1e-6 side by side. The variance of float32 values is that of the
    centered values (E[x²] - E[x]² would lose digits); of half-precision ones, whose rounding loses more than that does,
    it is taken in the same pass as the mean, which a TPU appends to the convolution before. Statistics go by channel
    first, then by group: splitting the channels of x itself into groups, as Flax does, makes XLA:CPU copy it.
    """

    def __init__(self, num_channels: int, num_groups: int, *, epsilon: float, **init: Unpack[Init]):
        self.out_dtype = init["dtype"]
        super().__init__(num_channels, num_groups=num_groups, epsilon=epsilon, **init)

    def __call__(self, x: Float[Array, "B ... C"]) -> Float[Array, "B ... C"]:
        """Normalizes each group of channels of each example to zero mean and unit variance, then scales."""
        half = x.dtype != jnp.float32
        x = x.astype(jnp.float32)
        mean = self._over_groups(mean_over_pixels(x))
        center = jnp.zeros_like(mean) if half else mean
        variance = self._over_groups(mean_over_pixels(jnp.square(x - center))) - jnp.square(mean - center)
        variance = jnp.maximum(variance, 0.0)
        per_channel = (1,) * (x.ndim - 1) + (-1,)
        scale, bias = (p.get_value().astype(jnp.float32).reshape(per_channel) for p in (self.scale, self.bias))
        return ((x - mean) * (jax.lax.rsqrt(variance + self.epsilon) * scale) + bias).astype(self.out_dtype)

    def _over_groups(self, by_channel: Float[Array, "B ... C"]) -> Float[Array, "B ... C"]:
        """The mean over each group of channels, for each of its channels."""
        grouped = by_channel.reshape(*by_channel.shape[:-1], self.num_groups, -1)
        return jnp.broadcast_to(grouped.mean(-1, keepdims=True), grouped.shape).reshape(by_channel.shape)


class LayerNorm(nnx.LayerNorm):
    """Layer normalization over the last axis, computed in float32 whatever the compute dtype.

    In half precision the variance is E[x²] - E[x]², as `GroupNorm`'s and for the same reason.
    """

    def __init__(self, num_features: int, *, epsilon: float, **init: Unpack[Init]):
        self.out_dtype = init["dtype"]
        options = {"epsilon": epsilon, "use_fast_variance": init["dtype"] != jnp.float32}
        super().__init__(num_features, **options, **{**init, "dtype": jnp.float32})

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """Normalizes the last axis to zero mean and unit variance, then scales."""
        return super().__call__(x.astype(jnp.float32)).astype(self.out_dtype)


class BatchNorm(nnx.Module):
    """Batch normalization as PyTorch's `BatchNorm2d` (epsilon 1e-5, momentum 0.1), with statistics in float32.

    `nnx.BatchNorm` isn't used since its running variance takes the biased estimate, where PyTorch's takes the unbiased.
    """

    def __init__(self, num_channels: int, *, epsilon: float = 1e-5, momentum: float = 0.1, **init: Unpack[Init]):
        self.epsilon, self.momentum, self.out_dtype = epsilon, momentum, init["dtype"]
        self.scale = nnx.Param(jnp.ones(num_channels, init["param_dtype"]))
        self.bias = nnx.Param(jnp.zeros(num_channels, init["param_dtype"]))
        self.mean = nnx.BatchStat(jnp.zeros(num_channels, jnp.float32))
        self.var = nnx.BatchStat(jnp.ones(num_channels, jnp.float32))

    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W C"]:
        """Normalizes each channel, in training by the batch's statistics, else by the running ones.

        Under a sharded batch the batch's statistics are those of the global batch. Training moves the running ones.

        Raises:
            ValueError: training on a single value a channel, whose variance is unknown.
        """
        x = x.astype(jnp.float32)
        mean, var = self._batch_statistics(x) if train else (self.mean[...], self.var[...])
        scale = self.scale[...].astype(jnp.float32) * jax.lax.rsqrt(var + self.epsilon)
        shift = self.bias[...].astype(jnp.float32)
        return ((x - _channels(mean)) * _channels(scale) + _channels(shift)).astype(self.out_dtype)

    def _batch_statistics(self, x: Float[Array, "B H W C"]) -> tuple[Float[Array, " C"], Float[Array, " C"]]:
        count = math.prod(x.shape[:-1])
        if count < 2:
            raise ValueError(f"batch normalization of {x.shape} in training: more than one value a channel is needed")
        mean = x.mean(axis=(0, 1, 2))
        var = jnp.square(x - _channels(mean)).mean(axis=(0, 1, 2))
        self.mean[...] += self.momentum * (mean - self.mean[...])
        self.var[...] += self.momentum * (var * (count / (count - 1)) - self.var[...])
        return mean, var


def nearest_resize(x: Array, sizes: tuple[int, ...], axes: tuple[int, ...]) -> Array:
    """Nearest-neighbor resize of `axes` to `sizes`, reading source index floor(i * in / out) as PyTorch does.

    `jax.image.resize` takes half-pixel centers instead and reads other elements at ratios like 768 → 256.
    """
    for size, axis in zip(sizes, axes, strict=True):
        length = x.shape[axis]
        if size % length == 0:
            x = jnp.repeat(x, size // length, axis=axis)
        else:
            x = jnp.take(x, np.arange(size) * length // size, axis=axis)
    return x


def check_remat(remat: bool | Collection[str], blocks: Sequence[str]) -> None:
    """Refuses a network's `remat` that names blocks it doesn't have.

    Raises:
        InterLCMError: so it is; names them, and the blocks there are.
    """
    if not isinstance(remat, bool) and (unknown := [name for name in remat if name not in blocks]):
        raise InterLCMError(f"remat names {', '.join(unknown)}, but the network's blocks are {', '.join(blocks)}")


def check_shape(name: str, x: Array, *shape: int | str) -> None:
    """Refuses what isn't a floating-point array of the shape that a network takes; costs a compiled program nothing.

    Args:
        name: the argument's.
        x: the argument.
        *shape: a number for each axis, or a letter where any length from 1 will do.

    Raises:
        InterLCMError: so it is; says what it should be.
    """
    if not isinstance(x, jax.Array | np.ndarray | nnx.Variable):
        raise InterLCMError(
            f"{name} is a {type(x).__module__}.{type(x).__name__}, but must be an array of JAX or NumPy"
        )
    unlike = any(m == 0 or (isinstance(n, int) and n != m) for n, m in zip(shape, x.shape, strict=False))
    if x.ndim != len(shape) or unlike:
        wanted = f"({', '.join(map(str, shape))})"
        hint = ", channels last" if wanted.startswith("(B, H, W") else ""
        raise InterLCMError(f"{name} has shape {tuple(x.shape)}, but must be {wanted}{hint}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InterLCMError(f"{name} is {x.dtype}, but must be floating point")


def check_batch(name: str, x: Array, batch: int) -> None:
    """Refuses an argument that is of another number of examples than the network's input, or than one for all.

    Raises:
        InterLCMError: so it is; says how many there are of both.
    """
    if x.shape[0] not in (1, batch):
        raise InterLCMError(
            f"{name} is for {x.shape[0]} examples, but the batch is of {batch}: give one for each, or one"
        )


def recomputes(remat: bool | Collection[str], block: str) -> bool:
    """Whether a network built with `remat` (all, none, or the names of its blocks) rematerializes this block."""
    return remat if isinstance(remat, bool) else block in remat


def call(module: Callable[..., Array], *args: object, remat: bool = False) -> Array:
    """Calls a block; with `remat` its activations are recomputed in the backward pass instead of kept."""
    return jax.checkpoint(module)(*args) if remat else module(*args)


def _channels(x: Float[Array, " C"]) -> Float[Array, "1 1 1 C"]:
    return x.reshape(1, 1, 1, -1)
