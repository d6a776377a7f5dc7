"""What RetinaFace's levels are made of: a ResNet, or a MobileNet, which is smaller and faster.

He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016, arXiv 1512.03385); Howard et al., "MobileNets:
Efficient Convolutional Neural Networks for Mobile Vision Applications" (arXiv 1704.04861).
"""

import itertools
from collections.abc import Sequence
from typing import Unpack

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from interlcm_jax.models.layers import BatchNorm, Conv, Init

EXPANSION = 4  # a ResNet block's output over its inner width
SLOPE = 0.1  # of the MobileNet's rectifiers below zero
_NEIGHBORS = tuple(itertools.product(range(3), range(3)))


class ConvNorm(nnx.Module):
    """Convolution, batch normalization by running statistics, and a rectifier, unless `slope` is None."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        slope: float | None = 0.0,
        **init: Unpack[Init],
    ):
        self.conv = Conv(in_channels, out_channels, kernel_size, stride=stride, use_bias=False, **init)
        self.norm = BatchNorm(out_channels, **init)
        self.slope, self.pointwise = slope, kernel_size == 1

    def __call__(self, x: Float[Array, "B H W C"], inside: Float[Array, "B Y X 1"] | None) -> Float[Array, "B h w D"]:
        """`inside` marks the photo's pixels; what is outside counts as zero, as beyond the border."""
        x = self.norm(self.conv(x if self.pointwise else zero_outside(x, inside)), train=False)
        return x if self.slope is None else nnx.leaky_relu(x, self.slope)


class Bottleneck(nnx.Module):
    """A block of ResNet-50 in torchvision's version, which strides in the 3x3 convolution."""

    def __init__(self, in_channels: int, width: int, stride: int, **init: Unpack[Init]):
        out_channels = width * EXPANSION
        self.conv1 = ConvNorm(in_channels, width, 1, **init)
        self.conv2 = ConvNorm(width, width, 3, stride=stride, **init)
        self.conv3 = ConvNorm(width, out_channels, 1, slope=None, **init)
        changes = stride > 1 or in_channels != out_channels
        self.downsample = ConvNorm(in_channels, out_channels, 1, stride=stride, slope=None, **init) if changes else None

    def __call__(self, x: Float[Array, "B H W C"], inside: Float[Array, "B Y X 1"] | None) -> Float[Array, "B h w D"]:
        """Adds the residual to the input, or to its projection where the shape changes."""
        residual = self.conv3(self.conv2(self.conv1(x, inside), inside), inside)
        return nnx.relu(residual + (x if self.downsample is None else self.downsample(x, inside)))


class ResNet(nnx.Module):
    """ResNet-50 without its classifier; its last three stages are the levels."""

    def __init__(self, width: int, layers: tuple[int, ...], **init: Unpack[Init]):
        self.conv1 = ConvNorm(3, width, 7, stride=2, **init)
        self.layer1 = _stage(width, width, layers[0], 1, **init)
        self.layer2 = _stage(width * EXPANSION, width * 2, layers[1], 2, **init)
        self.layer3 = _stage(width * 2 * EXPANSION, width * 4, layers[2], 2, **init)
        self.layer4 = _stage(width * 4 * EXPANSION, width * 8, layers[3], 2, **init)

    def __call__(
        self, x: Float[Array, "B H W 3"], inside: Float[Array, "B Y X 1"] | None
    ) -> list[Float[Array, "B _ _ _"]]:
        """Features at strides 8, 16 and 32."""
        # Nothing is negative here, so the zeros outside don't change the maximum at the border.
        x = zero_outside(self.conv1(x, inside), inside)
        x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        features = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = block(x, inside)
            features.append(x)
        return features[1:]


class DepthwiseConv(nnx.Module):
    """3x3 convolution of each channel by itself, without bias, kernel (3, 3, 1, C) as HWIO has it.

    A sum of nine products by element: XLA's grouped convolution takes some sixty times as long on CPUs.
    """

    def __init__(self, channels: int, stride: int, **init: Unpack[Init]):
        draw = nnx.initializers.lecun_normal()
        self.kernel = nnx.Param(draw(init["rngs"].params(), (3, 3, 1, channels), init["param_dtype"]))
        self.stride, self.dtype = stride, init["dtype"]

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
        """Convolves; beyond the border is zero."""
        kernel = self.kernel[...].astype(self.dtype)
        padded = jnp.pad(x.astype(self.dtype), ((0, 0), (1, 1), (1, 1), (0, 0)))
        height, width = x.shape[1:3]
        rows = [padded[:, i : i + height : self.stride] for i in range(3)]
        return sum(rows[i][:, :, j : j + width : self.stride] * kernel[i : i + 1, j : j + 1] for i, j in _NEIGHBORS)


class DepthwiseNorm(nnx.Module):
    """`DepthwiseConv`, batch normalization by running statistics, and a leaky rectifier."""

    def __init__(self, channels: int, stride: int, **init: Unpack[Init]):
        self.conv = DepthwiseConv(channels, stride, **init)
        self.norm = BatchNorm(channels, **init)

    def __call__(self, x: Float[Array, "B H W C"], inside: Float[Array, "B Y X 1"] | None) -> Float[Array, "B h w C"]:
        """`inside` as in `ConvNorm`."""
        return nnx.leaky_relu(self.norm(self.conv(zero_outside(x, inside)), train=False), SLOPE)


class SeparableConv(nnx.Module):
    """A block of MobileNet: a 3x3 convolution of each channel by itself, then one of all channels, pixel by pixel."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, **init: Unpack[Init]):
        self.depthwise = DepthwiseNorm(in_channels, stride, **init)
        self.pointwise = ConvNorm(in_channels, out_channels, 1, slope=SLOPE, **init)

    def __call__(self, x: Float[Array, "B H W C"], inside: Float[Array, "B Y X 1"] | None) -> Float[Array, "B h w D"]:
        """Both convolutions, one after the other."""
        return self.pointwise(self.depthwise(x, inside), inside)


class MobileNet(nnx.Module):
    """MobileNetV1 without its classifier; its three stages are the levels.

    Args:
        width: after the first convolution.
        layers: how many blocks are 2, 4, 8, 16 and 32 times as wide; the first of each but the first halves the size.
        **init: as for any layer.
    """

    def __init__(self, width: int, layers: tuple[int, ...], **init: Unpack[Init]):
        groups = [_separable(width * 2**i, count, 1 if i == 0 else 2, **init) for i, count in enumerate(layers)]
        stem = ConvNorm(3, width, 3, stride=2, slope=SLOPE, **init)
        self.stage1 = nnx.List([stem, *groups[0], *groups[1], *groups[2]])
        self.stage2, self.stage3 = nnx.List(groups[3]), nnx.List(groups[4])

    def __call__(
        self, x: Float[Array, "B H W 3"], inside: Float[Array, "B Y X 1"] | None
    ) -> list[Float[Array, "B _ _ _"]]:
        """Features at strides 8, 16 and 32."""
        features = []
        for stage in (self.stage1, self.stage2, self.stage3):
            for block in stage:
                x = block(x, inside)
            features.append(x)
        return features


def zero_outside(x: Float[Array, "B h w C"], inside: Float[Array, "B H W 1"] | None) -> Float[Array, "B h w C"]:
    """Zeroes what is outside the photo: positions that start at a pixel outside."""
    if inside is None:
        return x
    stride = inside.shape[1] // x.shape[1]
    return x * inside[:, ::stride, ::stride].astype(x.dtype)


def _stage(in_channels: int, width: int, blocks: int, stride: int, **init: Unpack[Init]) -> nnx.List:
    first = Bottleneck(in_channels, width, stride, **init)
    return nnx.List([first, *(Bottleneck(width * EXPANSION, width, 1, **init) for _ in range(blocks - 1))])


def _separable(in_channels: int, count: int, stride: int, **init: Unpack[Init]) -> Sequence[SeparableConv]:
    width = 2 * in_channels
    first = SeparableConv(in_channels, width, stride, **init)
    return [first, *(SeparableConv(width, width, 1, **init) for _ in range(count - 1))]
