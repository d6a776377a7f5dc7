"""FAN: the landmarks of an aligned face, as heat maps.

Four stacked hourglasses that are told where they look, of Wang et al., "Adaptive Wing Loss for Robust Face Alignment
via Heatmap Regression" (ICCV 2019, arXiv 1904.07399), trained on WFLW's 98 points. Submodules that the release names
are named as there.
"""

import dataclasses
from pathlib import Path
from typing import Self, Unpack

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from interlcm_jax.convert.fan import TABLE
from interlcm_jax.metrics import weights
from interlcm_jax.models.config import NetworkConfig
from interlcm_jax.models.layers import BatchNorm, Conv, Init, nearest_resize
from interlcm_jax.models.weights import ShardingRule

BOUNDARY = 0.05  # from here on a heat map shows the outline of the face


@dataclasses.dataclass(frozen=True)
class FANConfig(NetworkConfig):
    """Sizes of FAN; the defaults are those of the published one.

    Attributes:
        image_size: height and width of the faces, pixels.
        base_channels: width at half resolution; the hourglasses' is four times that.
        num_stacks: hourglasses one after the other.
        depth: how often an hourglass halves the resolution.
        num_landmarks: points; one more heat map shows the outline.
    """

    image_size: int = 256
    base_channels: int = 64
    num_stacks: int = 4
    depth: int = 4
    num_landmarks: int = 98

    @classmethod
    def miniature(cls) -> Self:
        """Faces of 64 pixels, 8 to 32 channels and two hourglasses, for tests."""
        return cls(image_size=64, base_channels=8, num_stacks=2, depth=2, num_landmarks=5)

    @property
    def heatmap_size(self) -> int:
        """Height and width of the heat maps."""
        return self.image_size // 4

    @property
    def channels(self) -> int:
        """Width of the hourglasses."""
        return 4 * self.base_channels


class CoordConv(nnx.Module):
    """Convolution that also sees each position's row, column and radius (Liu et al., NeurIPS 2018, arXiv 1807.03247).

    With `outlined` it sees row and column once more, where the outline of the face is.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        outlined: bool = False,
        **init: Unpack[Init],
    ):
        seen = in_channels + (5 if outlined else 3)
        self.conv = Conv(seen, out_channels, kernel_size, stride=stride, **init)

    def __call__(
        self, x: Float[Array, "B H W C"], outline: Float[Array, "B H W 1"] | None = None
    ) -> Float[Array, "B h w D"]:
        """`outline` is the heat map of the outline, by the hourglass before."""
        height, width = x.shape[1:3]
        grid = jnp.stack(
            jnp.meshgrid(_from_minus_one(height), _from_minus_one(width), indexing="ij"), axis=-1, dtype=x.dtype
        )
        radius = jnp.linalg.norm(grid, axis=-1, keepdims=True)
        places = jnp.concatenate([grid, radius / radius.max()], axis=-1)[None]
        parts = [x, jnp.broadcast_to(places, (*x.shape[:3], 3))]
        if outline is not None:
            parts.append(jnp.where(outline > BOUNDARY, grid[None], 0))
        return self.conv(jnp.concatenate(parts, axis=-1))


class ConvBlock(nnx.Module):
    """Three convolutions, each of the one before, whose outputs stand side by side, beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, **init: Unpack[Init]):
        half, quarter = out_channels // 2, out_channels // 4
        self.bn1 = BatchNorm(in_channels, **init)
        self.conv1 = Conv(in_channels, half, use_bias=False, **init)
        self.bn2 = BatchNorm(half, **init)
        self.conv2 = Conv(half, quarter, use_bias=False, **init)
        self.bn3 = BatchNorm(quarter, **init)
        self.conv3 = Conv(quarter, quarter, use_bias=False, **init)
        self.downsample = Projection(in_channels, out_channels, **init) if in_channels != out_channels else None

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W D"]:
        """Norm and rectifier come before each convolution."""
        first = self.conv1(nnx.relu(self.bn1(x, train=False)))
        second = self.conv2(nnx.relu(self.bn2(first, train=False)))
        third = self.conv3(nnx.relu(self.bn3(second, train=False)))
        shortcut = x if self.downsample is None else self.downsample(x)
        return jnp.concatenate([first, second, third], axis=-1) + shortcut


class Projection(nnx.Module):
    """The shortcut of a block that changes the width; it keeps the size, whatever the release's name says."""

    def __init__(self, in_channels: int, out_channels: int, **init: Unpack[Init]):
        self.bn = BatchNorm(in_channels, **init)
        self.conv = Conv(in_channels, out_channels, 1, use_bias=False, **init)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W D"]:
        """Norm and rectifier come before the convolution."""
        return self.conv(nnx.relu(self.bn(x, train=False)))


class HourGlass(nnx.Module):
    """Halves the resolution `depth` times and doubles it again, with a shortcut at each level."""

    def __init__(self, channels: int, depth: int, outlined: bool, **init: Unpack[Init]):
        self.depth = depth
        self.coordconv = CoordConv(channels, channels, 1, outlined=outlined, **init)
        for level in range(1, depth + 1):
            for branch in ("b1", "b2", "b3") if level > 1 else ("b1", "b2", "b2_plus", "b3"):
                setattr(self, f"{branch}_{level}", ConvBlock(channels, channels, **init))

    def __call__(self, x: Float[Array, "B h w C"], outline: Float[Array, "B h w 1"] | None) -> Float[Array, "B h w C"]:
        """`outline` is None for the first of the stack."""
        return self._level(self.depth, self.coordconv(x, outline))

    def _level(self, level: int, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        shortcut = getattr(self, f"b1_{level}")(x)
        low = getattr(self, f"b2_{level}")(_halved(x))
        low = self._level(level - 1, low) if level > 1 else self.b2_plus_1(low)
        low = getattr(self, f"b3_{level}")(low)
        return shortcut + nearest_resize(low, x.shape[1:3], (1, 2))


class Stack(nnx.Module):
    """An hourglass, the heat maps it gives, and what goes on to the next; the last of the stack has no next."""

    def __init__(self, config: FANConfig, first: bool, last: bool, **init: Unpack[Init]):
        width, maps = config.channels, config.num_landmarks + 1
        self.m = HourGlass(width, config.depth, outlined=not first, **init)
        self.top_m = ConvBlock(width, width, **init)
        self.conv_last = Conv(width, width, 1, **init)
        self.bn_end = BatchNorm(width, **init)
        self.l = Conv(width, maps, 1, **init)
        self.bl = None if last else Conv(width, width, 1, **init)
        self.al = None if last else Conv(maps, width, 1, **init)

    def __call__(
        self, x: Float[Array, "B h w C"], outline: Float[Array, "B h w 1"] | None
    ) -> tuple[Float[Array, "B h w maps"], Float[Array, "B h w C"]]:
        """The heat maps, and the next hourglass's input."""
        features = self.conv_last(self.top_m(self.m(x, outline)))
        features = nnx.relu(self.bn_end(features, train=False))
        heatmaps = self.l(features)
        return heatmaps, x if self.bl is None else x + self.bl(features) + self.al(heatmaps)


class FAN(nnx.Module):
    """Finds a face's landmarks: a heat map for each.

    Args:
        config: the sizes.
        rngs: source of the random initial weights.
        dtype: dtype of the computation; normalization is in float32 all the same.
        param_dtype: dtype the weights are kept in; running statistics are in float32 all the same.
    """

    def __init__(
        self,
        config: FANConfig,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ):
        init = Init(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.config = config
        width, last = config.base_channels, config.num_stacks - 1
        self.conv1 = CoordConv(3, width, 7, stride=2, **init)
        self.bn1 = BatchNorm(width, **init)
        self.conv2 = ConvBlock(width, 2 * width, **init)
        self.conv3 = ConvBlock(2 * width, 2 * width, **init)
        self.conv4 = ConvBlock(2 * width, 4 * width, **init)
        self.stacks = nnx.List([Stack(config, i == 0, i == last, **init) for i in range(config.num_stacks)])

    def __call__(self, x: Float[Array, "B S S 3"]) -> Float[Array, "B s s maps"]:
        """The last hourglass's heat maps of RGB faces in [0, 1]: the landmarks', and then the outline's."""
        x = nnx.relu(self.bn1(self.conv1(x), train=False))
        x = self.conv4(self.conv3(_halved(self.conv2(x))))
        outline = None
        for stack in self.stacks:
            heatmaps, x = stack(x, outline)
            outline = heatmaps[..., -1:]
        return heatmaps


def load(path: str | Path, *, config: FANConfig | None = None, sharding: ShardingRule | None = None) -> FAN:
    """Loads the published `alignment_WFLW_4HG.pth`, or what `weights.save` made of it.

    Args:
        path: the file.
        config: the network's sizes; None is the published one's.
        sharding: where each weight goes; None is the default device.

    Raises:
        InterLCMError: there is no such file (the message says which one is meant and where it is published), or it is
            a .pth and PyTorch isn't installed.
        WeightsError: the weights don't fit, or aren't whole or finite; every offending key is named.
    """
    sizes = config or FANConfig()
    tensors = weights.read_published(path, weights.FAN)
    return weights.build(lambda rngs: FAN(sizes, rngs=rngs), tensors, TABLE, path, sharding)


def _from_minus_one(size: int) -> Float[np.ndarray, " size"]:
    """To 1, in even steps."""
    return np.arange(size, dtype=np.float32) / np.float32(size - 1) * 2 - 1


def _halved(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))
