"""ArcFace: what tells one person from another, as a direction in space.

The ResNet-18 with improved residual blocks of ronghuaiyang/arcface-pytorch (Deng et al., "ArcFace: Additive Angular
Margin Loss for Deep Face Recognition", CVPR 2019, arXiv 1801.07698), which the field measures identity by (see
`identity`). Submodules are named as in the release.
"""

import dataclasses
from pathlib import Path
from typing import Self, Unpack

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from interlcm_jax.convert.arcface import TABLE
from interlcm_jax.metrics.weights import DEG, Published, build, read_published
from interlcm_jax.models.config import NetworkConfig
from interlcm_jax.models.layers import BatchNorm, Conv, Init, Linear
from interlcm_jax.models.weights import ShardingRule


@dataclasses.dataclass(frozen=True)
class ArcFaceConfig(NetworkConfig):
    """Sizes of the recognizer; the defaults are those of both published ones.

    Attributes:
        image_size: height and width of the faces, pixels.
        base_channels: width of the first stage; it doubles from stage to stage.
        layers: residual blocks in each of the four stages.
        embedding_size: numbers that describe a face.
        squeeze_excitation: whether blocks weigh their channels; arcface-pytorch can, and the published files don't.
        reduction: how much narrower that is inside.
    """

    image_size: int = 128
    base_channels: int = 64
    layers: tuple[int, ...] = (2, 2, 2, 2)
    embedding_size: int = 512
    squeeze_excitation: bool = False
    reduction: int = 16

    @classmethod
    def miniature(cls) -> Self:
        """Faces of 32 pixels, 8 to 64 channels and five blocks, for tests."""
        return cls(image_size=32, base_channels=8, layers=(2, 1, 1, 1), embedding_size=24, reduction=4)


class PReLU(nnx.Module):
    """A rectifier with one learned slope below zero."""

    def __init__(self, **init: Unpack[Init]):
        self.slope = nnx.Param(jnp.full(1, 0.25, init["param_dtype"]))

    def __call__(self, x: Float[Array, "B ... C"]) -> Float[Array, "B ... C"]:
        """The same slope for all channels."""
        return jnp.where(x >= 0, x, self.slope[...].astype(x.dtype).reshape((1,) * x.ndim) * x)


class SqueezeExcitation(nnx.Module):
    """Weighs the channels by their means (Hu et al., CVPR 2018, arXiv 1709.01507)."""

    def __init__(self, channels: int, reduction: int, **init: Unpack[Init]):
        inner = channels // reduction
        self.fc = nnx.List([Linear(channels, inner, **init), PReLU(**init), Linear(inner, channels, **init)])

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Weights from 0 to 1."""
        weights = x.mean(axis=(1, 2), keepdims=True)
        for layer in self.fc:
            weights = layer(weights)
        return x * nnx.sigmoid(weights)


class IRBlock(nnx.Module):
    """A residual block that normalizes its input and strides in its second convolution; one slope serves twice."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, config: ArcFaceConfig, **init: Unpack[Init]):
        self.bn0 = BatchNorm(in_channels, **init)
        self.conv1 = Conv(in_channels, in_channels, use_bias=False, **init)
        self.bn1 = BatchNorm(in_channels, **init)
        self.prelu = PReLU(**init)
        self.conv2 = Conv(in_channels, out_channels, stride=stride, use_bias=False, **init)
        self.bn2 = BatchNorm(out_channels, **init)
        weighs = config.squeeze_excitation
        self.se = SqueezeExcitation(out_channels, config.reduction, **init) if weighs else None
        changes = stride > 1 or in_channels != out_channels
        self.downsample = _projection(in_channels, out_channels, stride, **init) if changes else None

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """Adds the residual to the input, or to its projection where the shape changes."""
        residual = self.prelu(self.bn1(self.conv1(self.bn0(x, train=False)), train=False))
        residual = self.bn2(self.conv2(residual), train=False)
        if self.se is not None:
            residual = self.se(residual)
        if self.downsample is not None:
            projection, norm = self.downsample
            x = norm(projection(x), train=False)
        return self.prelu(residual + x)


class ArcFace(nnx.Module):
    """Describes faces by embeddings, of which only the direction counts.

    Args:
        config: the sizes.
        rngs: source of the random initial weights.
        dtype: dtype of the computation; normalization is in float32 all the same.
        param_dtype: dtype the weights are kept in; running statistics are in float32 all the same.
    """

    def __init__(
        self,
        config: ArcFaceConfig,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ):
        init = Init(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.config = config
        width = config.base_channels
        self.conv1 = Conv(1, width, use_bias=False, **init)
        self.bn1 = BatchNorm(width, **init)
        self.prelu = PReLU(**init)
        first, second, third, fourth = config.layers
        self.layer1 = _stage(width, width, first, 1, config, **init)
        self.layer2 = _stage(width, 2 * width, second, 2, config, **init)
        self.layer3 = _stage(2 * width, 4 * width, third, 2, config, **init)
        self.layer4 = _stage(4 * width, 8 * width, fourth, 2, config, **init)
        self.bn4 = BatchNorm(8 * width, **init)
        self.fc5 = Linear(8 * width * (config.image_size // 16) ** 2, config.embedding_size, **init)
        self.bn5 = BatchNorm(config.embedding_size, **init)

    def __call__(self, gray: Float[Array, "B S S 1"]) -> Float[Array, "B D"]:
        """Embeddings of gray faces, in the range of the weights at hand."""
        x = nnx.max_pool(self.prelu(self.bn1(self.conv1(gray), train=False)), (2, 2), strides=(2, 2))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = block(x)
        # The release's order: channel by channel. A permutation of the kernel's axes can't say that.
        x = self.bn4(x, train=False).transpose(0, 3, 1, 2).reshape(x.shape[0], 1, 1, -1)
        return self.bn5(self.fc5(x), train=False)[:, 0, 0]


def load(
    path: str | Path,
    published: Published = DEG,
    *,
    config: ArcFaceConfig | None = None,
    sharding: ShardingRule | None = None,
) -> ArcFace:
    """Loads the published recognizer of Deg or IDA, or what `weights.save` made of it.

    Args:
        path: the file.
        published: which one it should be, `weights.DEG` or `weights.IDA`; for the message where there is no file.
        config: the network's sizes; None is the published ones', with squeeze and excitation where the file has it.
        sharding: where each weight goes; None is the default device.

    Raises:
        InterLCMError: there is no such file (the message says which one is meant and where it is published), or it is
            a .pth and PyTorch isn't installed.
        WeightsError: the weights don't fit, or aren't whole or finite; every offending key is named.
    """
    tensors = read_published(path, published)
    sizes = config or ArcFaceConfig(squeeze_excitation=any(".se." in key for key in tensors))
    return build(lambda rngs: ArcFace(sizes, rngs=rngs), tensors, TABLE, path, sharding)


def _projection(in_channels: int, out_channels: int, stride: int, **init: Unpack[Init]) -> nnx.List:
    """A convolution and its norm."""
    conv = Conv(in_channels, out_channels, 1, stride=stride, use_bias=False, **init)
    return nnx.List([conv, BatchNorm(out_channels, **init)])


def _stage(
    in_channels: int, out_channels: int, blocks: int, stride: int, config: ArcFaceConfig, **init: Unpack[Init]
) -> nnx.List:
    first = IRBlock(in_channels, out_channels, stride, config, **init)
    return nnx.List([first, *(IRBlock(out_channels, out_channels, 1, config, **init) for _ in range(blocks - 1))])
