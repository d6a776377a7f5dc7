"""The leaves of the autoencoder's blocks, named as in diffusers: resnet, attention, and changes of resolution."""

import functools
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from interlcm_jax.models.kernels.attention import dot_product_attention
from interlcm_jax.models.layers import Conv, GroupNorm, Init, Linear, nearest_resize

EPSILON = 1e-6  # of every GroupNorm of the autoencoder; the UNet's resnets have 1e-5


class ResnetBlock(nnx.Module):
    """GroupNorm, SiLU and 3x3 convolution, twice, added to the input; no timestep embedding."""

    def __init__(self, in_channels: int, out_channels: int, num_groups: int, **init: Unpack[Init]):
        self.norm1 = GroupNorm(in_channels, num_groups, epsilon=EPSILON, **init)
        self.conv1 = Conv(in_channels, out_channels, **init)
        self.norm2 = GroupNorm(out_channels, num_groups, epsilon=EPSILON, **init)
        self.conv2 = Conv(out_channels, out_channels, **init)
        self.conv_shortcut = None if in_channels == out_channels else Conv(in_channels, out_channels, 1, **init)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W D"]:
        """Changes the width from C to D."""
        h = self.conv1(nnx.silu(self.norm1(x)))
        h = self.conv2(nnx.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Attention(nnx.Module):
    """Self-attention over all positions with a single head as wide as the input, added to the input."""

    def __init__(self, channels: int, num_groups: int, **init: Unpack[Init]):
        self.group_norm = GroupNorm(channels, num_groups, epsilon=EPSILON, **init)
        self.to_q = Linear(channels, channels, **init)
        self.to_k = Linear(channels, channels, **init)
        self.to_v = Linear(channels, channels, **init)
        self.to_out = nnx.List([Linear(channels, channels, **init)])

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Lets every position attend to every other."""
        batch, height, width, channels = x.shape
        tokens = self.group_norm(x).reshape(batch, height * width, 1, channels)  # one head
        attended = dot_product_attention(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens))
        return x + self.to_out[0](attended).reshape(x.shape)


class Downsample(nnx.Module):
    """Halves the resolution with a strided 3x3 convolution that pads the bottom and the right only."""

    def __init__(self, channels: int, **init: Unpack[Init]):
        self.conv = Conv(channels, channels, stride=2, padding=0, **init)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H//2 W//2 C"]:
        """Odd sizes are rounded down."""
        return self.conv(jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0))))


class UpsampleConv(Conv):
    """A 3x3 convolution that can double its map first."""

    def __call__(self, x: Float[Array, "B H W C"], double: bool = False) -> Float[Array, "B h w D"]:
        """Convolves x or, where `double`, its double, and adds the bias."""
        if not double:
            return super().__call__(x)
        choose = functools.partial(jax.lax.platform_dependent, tpu=upsample_within_conv, default=upsample_then_conv)
        # As in `attention`: the backward pass needs no more than the inputs.
        return jax.checkpoint(choose)(self, x)


class Upsample(nnx.Module):
    """Doubles the resolution: nearest neighbors, then a 3x3 convolution."""

    def __init__(self, channels: int, **init: Unpack[Init]):
        self.conv = UpsampleConv(channels, channels, **init)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B 2*H 2*W C"]:
        """Repeats every position in a 2x2 square and smooths."""
        if type(self.conv) is UpsampleConv:
            return self.conv(x, double=True)
        return upsample_then_conv(self.conv, x)


def upsample_then_conv(conv: Conv, x: Float[Array, "B H W C"]) -> Float[Array, "B 2*H 2*W C"]:
    """A 3x3 convolution of the doubled map."""
    _, height, width, _ = x.shape
    return conv(nearest_resize(x, (2 * height, 2 * width), (1, 2)))


def upsample_within_conv(conv: Conv, x: Float[Array, "B H W C"]) -> Float[Array, "B 2*H 2*W C"]:
    """The same in one convolution, with 4/9 of the multiplications and no doubled map, which on a TPU is written twice.

    The doubled map is x, with zeros between its positions, convolved with a 2x2 square of ones; merged with it, the
    3x3 kernel becomes one of 4x4. Kernels are merged in float32 and rounded once.
    """
    kernel = conv.kernel.get_value().astype(jnp.float32)
    rows = jnp.pad(kernel, ((0, 1), (0, 0), (0, 0), (0, 0))) + jnp.pad(kernel, ((1, 0), (0, 0), (0, 0), (0, 0)))
    merged = jnp.pad(rows, ((0, 0), (0, 1), (0, 0), (0, 0))) + jnp.pad(rows, ((0, 0), (1, 0), (0, 0), (0, 0)))
    out = jax.lax.conv_general_dilated(
        x,
        merged.astype(x.dtype),
        window_strides=(1, 1),
        padding=((2, 2), (2, 2)),
        lhs_dilation=(2, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return out + conv.bias.get_value().astype(x.dtype)[None, None, None]
