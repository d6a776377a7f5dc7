"""The down, mid and up blocks that UNet and ControlNet are made of, named as in diffusers."""

from collections.abc import Sequence
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from interlcm_jax.models.layers import Conv, GroupNorm, Init, Linear, call, nearest_resize
from interlcm_jax.models.transformer import KeyValue, Transformer2DModel

# The context's keys and values of one block: for each of its attentions, for each transformer block.
BlockKeyValues = list[list[KeyValue]]


class ResnetBlock2D(nnx.Module):
    """Two 3x3 convolutions with the time embedding added between them, and a residual."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        temb_channels: int,
        *,
        num_groups: int,
        epsilon: float,
        **init: Unpack[Init],
    ):
        self.norm1 = GroupNorm(in_channels, num_groups, epsilon=epsilon, **init)
        self.conv1 = Conv(in_channels, out_channels, **init)
        self.time_emb_proj = Linear(temb_channels, out_channels, **init)
        self.norm2 = GroupNorm(out_channels, num_groups, epsilon=epsilon, **init)
        self.conv2 = Conv(out_channels, out_channels, **init)
        self.conv_shortcut = Conv(in_channels, out_channels, 1, **init) if in_channels != out_channels else None

    def __call__(self, x: Float[Array, "B H W C"], temb: Float[Array, "b E"]) -> Float[Array, "B H W D"]:
        """`temb` holds one embedding for each example, or one for all (b = 1)."""
        hidden = self.conv1(jax.nn.silu(self.norm1(x)))
        hidden = hidden + self.time_emb_proj(jax.nn.silu(temb))[:, None, None]
        hidden = self.conv2(jax.nn.silu(self.norm2(hidden)))
        return hidden + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Downsample2D(nnx.Module):
    """3x3 convolution of stride 2, padded by one all round (the VAE's pads differently)."""

    def __init__(self, channels: int, **init: Unpack[Init]):
        self.conv = Conv(channels, channels, stride=2, **init)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
        """Halves height and width, rounding up."""
        return self.conv(x)


class Upsample2D(nnx.Module):
    """Nearest resize, then a 3x3 convolution."""

    def __init__(self, channels: int, **init: Unpack[Init]):
        self.conv = Conv(channels, channels, **init)

    def __call__(self, x: Float[Array, "B h w C"], size: tuple[int, int]) -> Float[Array, "B H W C"]:
        """Resizes to `size`, which is twice the input's but for maps of odd size."""
        return self.conv(nearest_resize(x, size, (1, 2)))


class Block(nnx.Module):
    """Resnets, each followed by a transformer where the block attends: the base of down, mid and up blocks."""

    resnets: nnx.List
    attentions: nnx.List
    remat: bool

    def key_values(self, context: Float[Array, "B T D"]) -> BlockKeyValues:
        """The context's keys and values for each attention of the block; empty where it doesn't attend."""
        return [attention.key_values(context) for attention in self.attentions]

    def _attend(self, index: int, x: Array, key_values: BlockKeyValues) -> Array:
        if not self.attentions:
            return x
        return call(self.attentions[index], x, key_values[index], remat=self.remat)


class DownBlock2D(Block):
    """`CrossAttnDownBlock2D`, or `DownBlock2D` without `attention`; the last block doesn't downsample."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        num_layers: int,
        resnet: dict,
        attention: dict | None,
        downsample: bool,
        remat: bool,
        **init: Unpack[Init],
    ):
        widths = [in_channels, *[out_channels] * (num_layers - 1)]
        self.resnets = nnx.List([ResnetBlock2D(width, out_channels, **resnet, **init) for width in widths])
        self.attentions = _attentions(num_layers, out_channels, attention, **init)
        self.downsamplers = nnx.List([Downsample2D(out_channels, **init)] if downsample else [])
        self.remat = remat

    def __call__(self, x: Array, temb: Array, key_values: BlockKeyValues) -> tuple[Array, list[Array]]:
        """Returns the block's output and its skip connections, in order."""
        skips = []
        for index, resnet in enumerate(self.resnets):
            x = self._attend(index, call(resnet, x, temb, remat=self.remat), key_values)
            skips.append(x)
        for downsampler in self.downsamplers:
            x = downsampler(x)
            skips.append(x)
        return x, skips


class MidBlock2D(Block):
    """`UNetMidBlock2DCrossAttn`: resnet, transformer, resnet."""

    def __init__(self, channels: int, *, resnet: dict, attention: dict, remat: bool, **init: Unpack[Init]):
        self.resnets = nnx.List([ResnetBlock2D(channels, channels, **resnet, **init) for _ in range(2)])
        self.attentions = _attentions(1, channels, attention, **init)
        self.remat = remat

    def __call__(self, x: Array, temb: Array, key_values: BlockKeyValues) -> Array:
        """Keeps shape."""
        x = self._attend(0, call(self.resnets[0], x, temb, remat=self.remat), key_values)
        return call(self.resnets[1], x, temb, remat=self.remat)


class UpBlock2D(Block):
    """`CrossAttnUpBlock2D`, or `UpBlock2D` without `attention`; the last block doesn't upsample."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        skip_channels: Sequence[int],
        *,
        resnet: dict,
        attention: dict | None,
        upsample: bool,
        remat: bool,
        **init: Unpack[Init],
    ):
        widths = [in_channels, *[out_channels] * (len(skip_channels) - 1)]
        self.resnets = nnx.List(
            [
                ResnetBlock2D(width + skip, out_channels, **resnet, **init)
                for width, skip in zip(widths, skip_channels, strict=True)
            ]
        )
        self.attentions = _attentions(len(skip_channels), out_channels, attention, **init)
        self.upsamplers = nnx.List([Upsample2D(out_channels, **init)] if upsample else [])
        self.remat = remat

    def __call__(
        self, x: Array, temb: Array, key_values: BlockKeyValues, skips: list[Array], size: tuple[int, int] | None
    ) -> Array:
        """Takes its skip connections last first, and upsamples to `size` (None in the last block)."""
        for index, (resnet, skip) in enumerate(zip(self.resnets, reversed(skips), strict=True)):
            x = call(resnet, jnp.concatenate([x, skip], axis=-1), temb, remat=self.remat)
            x = self._attend(index, x, key_values)
        for upsampler in self.upsamplers:
            x = upsampler(x, size)
        return x


def _attentions(count: int, channels: int, attention: dict | None, **init: Unpack[Init]) -> nnx.List:
    if attention is None:
        return nnx.List([])
    return nnx.List([Transformer2DModel(channels, **attention, **init) for _ in range(count)])
