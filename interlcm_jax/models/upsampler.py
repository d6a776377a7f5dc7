"""Real-ESRGAN's two networks, which enlarge photos: RRDBNet and the compact VGG-style network.

Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data", ICCVW 2021
(arXiv 2107.10833). They are the only networks here that take and give RGB in [0, 1].
"""

import dataclasses
from typing import Self, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from interlcm_jax.models.config import NetworkConfig
from interlcm_jax.models.layers import Conv, Init, check_shape, nearest_resize

LEAK, RESIDUAL_SCALE = 0.2, 0.2
# How many times the features of RRDBNet are enlarged, whatever its scale: below 4 the photo is folded first.
FEATURES_SCALE = 4


@dataclasses.dataclass(frozen=True)
class RRDBNetConfig(NetworkConfig):
    """Sizes of RRDBNet; the defaults are those of `RealESRGAN_x4plus`.

    Attributes:
        scale: how many times a photo is enlarged: 4, 2 or 1.
        channels: width between blocks.
        growth_channels: what each convolution within a dense block adds to them.
        num_blocks: residual-in-residual dense blocks.
    """

    scale: int = 4
    channels: int = 64
    growth_channels: int = 32
    num_blocks: int = 23

    @classmethod
    def miniature(cls) -> Self:
        """Two narrow blocks, for tests."""
        return cls(scale=2, channels=8, growth_channels=4, num_blocks=2)

    @property
    def fold(self) -> int:
        """Pixels of the photo, along one side, that become channels of one pixel."""
        return FEATURES_SCALE // self.scale

    def contradictions(self) -> list[str]:
        """The features grow by 4, less what is folded before."""
        return [] if self.scale in (1, 2, 4) else [f"scale={self.scale} (must be 1, 2 or 4)"]


@dataclasses.dataclass(frozen=True)
class SRVGGConfig(NetworkConfig):
    """Sizes of the compact network; the defaults are those of `realesr-general-x4v3`.

    Attributes:
        scale: how many times a photo is enlarged.
        channels: width.
        num_layers: convolutions between the first and the last.
    """

    scale: int = 4
    channels: int = 64
    num_layers: int = 32

    @classmethod
    def miniature(cls) -> Self:
        """Three narrow layers, for tests."""
        return cls(scale=2, channels=8, num_layers=3)

    @property
    def fold(self) -> int:
        """None of the photo is folded."""
        return 1


class ResidualDenseBlock(nnx.Module):
    """Five convolutions, each of which sees the block's input and what all before it gave."""

    def __init__(self, channels: int, growth: int, **init: Unpack[Init]):
        widths = [channels + i * growth for i in range(5)]
        self.conv1, self.conv2, self.conv3, self.conv4 = (Conv(width, growth, **init) for width in widths[:4])
        self.conv5 = Conv(widths[4], channels, **init)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """What the block adds counts a fifth."""
        features = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            features = jnp.concatenate([features, nnx.leaky_relu(conv(features), LEAK)], axis=-1)
        return RESIDUAL_SCALE * self.conv5(features) + x


class RRDB(nnx.Module):
    """Residual in residual dense block: three dense blocks beside a shortcut."""

    def __init__(self, channels: int, growth: int, **init: Unpack[Init]):
        self.rdb1, self.rdb2, self.rdb3 = (ResidualDenseBlock(channels, growth, **init) for _ in range(3))

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """What the three add counts a fifth."""
        return RESIDUAL_SCALE * self.rdb3(self.rdb2(self.rdb1(x))) + x


class RRDBNet(nnx.Module):
    """Real-ESRGAN's large network, as `RealESRGAN_x4plus` and `RealESRGAN_x2plus` have it.

    Args:
        config: the sizes.
        rngs: source of the random initial weights.
        dtype: dtype of the computation.
        param_dtype: dtype the weights are kept in.
    """

    def __init__(
        self,
        config: RRDBNetConfig,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ):
        init = Init(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.config = config
        width = config.channels
        self.conv_first = Conv(3 * config.fold**2, width, **init)
        self.body = nnx.List([RRDB(width, config.growth_channels, **init) for _ in range(config.num_blocks)])
        self.conv_body = Conv(width, width, **init)
        self.conv_up1 = Conv(width, width, **init)
        self.conv_up2 = Conv(width, width, **init)
        self.conv_hr = Conv(width, width, **init)
        self.conv_last = Conv(width, 3, **init)

    def __call__(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B h w 3"]:
        """RGB in [0, 1] to `scale` times its height and width, not clipped.

        Raises:
            InterLCMError: `image` is of another shape, or its sides aren't multiples of `config.fold`.
        """
        check_shape("image", image, "B", "H", "W", 3)
        first = self.conv_first(pixel_unshuffle(image, self.config.fold))
        x = first + self.conv_body(_one_by_one(list(self.body), first))
        for conv in (self.conv_up1, self.conv_up2):
            x = nnx.leaky_relu(conv(_double(x)), LEAK)
        return self.conv_last(nnx.leaky_relu(self.conv_hr(x), LEAK))


class PReLU(nnx.Module):
    """Rectifier with a learned slope for each channel's negative values."""

    def __init__(self, channels: int, **init: Unpack[Init]):
        self.dtype = init["dtype"]
        self.slope = nnx.Param(jnp.full(channels, 0.25, init["param_dtype"]))

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Element by element."""
        return jnp.where(x >= 0, x, self.slope[...].astype(self.dtype).reshape(1, 1, 1, -1) * x)


class SRVGGNetCompact(nnx.Module):
    """Real-ESRGAN's compact network, as `realesr-general-x4v3` and `realesr-animevideov3` have it.

    Args:
        config: the sizes.
        rngs: source of the random initial weights.
        dtype: dtype of the computation.
        param_dtype: dtype the weights are kept in.
    """

    def __init__(
        self,
        config: SRVGGConfig,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ):
        init = Init(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.config = config
        width = config.channels
        layers = [Conv(3, width, **init), PReLU(width, **init)]
        for _ in range(config.num_layers):
            layers += [Conv(width, width, **init), PReLU(width, **init)]
        self.body = nnx.List([*layers, Conv(width, 3 * config.scale**2, **init)])

    def __call__(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B h w 3"]:
        """RGB in [0, 1] to `scale` times its height and width, not clipped.

        Raises:
            InterLCMError: `image` is of another shape.
        """
        check_shape("image", image, "B", "H", "W", 3)
        x = image
        for layer in self.body:
            x = layer(x)
        height, width = (self.config.scale * side for side in image.shape[1:3])
        # The network adds to the photo enlarged as it is, which half precision would blur.
        return pixel_shuffle(x, self.config.scale).astype(image.dtype) + nearest_resize(image, (height, width), (1, 2))


def pixel_unshuffle(x: Float[Array, "B H W C"], factor: int) -> Float[Array, "B h w D"]:
    """Folds squares of `factor` pixels into channels, in PyTorch's order: channel, row, column."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // factor, factor, width // factor, factor, channels)
    return x.transpose(0, 1, 3, 5, 2, 4).reshape(batch, height // factor, width // factor, -1)


def pixel_shuffle(x: Float[Array, "B h w D"], factor: int) -> Float[Array, "B H W C"]:
    """The inverse of `pixel_unshuffle`."""
    batch, height, width, _ = x.shape
    x = x.reshape(batch, height, width, -1, factor, factor)
    return x.transpose(0, 1, 4, 2, 5, 3).reshape(batch, height * factor, width * factor, -1)


def _double(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    return nearest_resize(x, (2 * x.shape[1], 2 * x.shape[2]), (1, 2))


def _one_by_one(blocks: list[RRDB], x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """Blocks of one shape, one after the other: a loop of one compiled block takes a tenth of the time to compile."""
    graph, _ = nnx.split(blocks[0])
    states = [nnx.state(block) for block in blocks]
    stacked = jax.tree.map(lambda *weights: jnp.stack(weights), *states)
    return jax.lax.scan(lambda x, state: (nnx.merge(graph, state)(x), None), x, stacked)[0]
