"""Inception-v3 as FID uses it: the features of images whose distribution `frechet` compares.

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (CVPR 2016, arXiv 1512.00567): TensorFlow's
`inception-2015-12-05`, which mseitzer/pytorch-fid ported to PyTorch. It isn't torchvision's: average pools don't count
their padding, and the last block's pool takes the maximum. Submodules are named as in the release.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Self, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from interlcm_jax.convert.inception import TABLE
from interlcm_jax.imaging.pixels import to_float
from interlcm_jax.imaging.resize import bilinear_resize
from interlcm_jax.metrics.inputs import Images, levels
from interlcm_jax.metrics.weights import INCEPTION, build, read_published
from interlcm_jax.models.config import NetworkConfig
from interlcm_jax.models.layers import BatchNorm, Init, Linear
from interlcm_jax.models.weights import ShardingRule
from interlcm_jax.runtime.compiler_options import jit

EPSILON = 1e-3  # of the batch normalizations
FEATURES = 128  # units of the last features


@dataclasses.dataclass(frozen=True)
class InceptionConfig(NetworkConfig):
    """Sizes of Inception-v3; the defaults are those of the published one.

    Attributes:
        image_size: height and width that images are resized to, pixels.
        unit: every width is a whole number of these channels.
        num_classes: outputs of the classifier.
    """

    image_size: int = 299
    unit: int = 16
    num_classes: int = 1008

    @classmethod
    def miniature(cls) -> Self:
        """The same blocks with an eighth of the channels, on images of 107 pixels, for tests."""
        return cls(image_size=107, unit=2, num_classes=10)

    @property
    def num_features(self) -> int:
        """Width of the features: 2048 in the published network."""
        return FEATURES * self.unit


class ConvNorm(nnx.Module):
    """Convolution, batch normalization by running statistics, and a rectifier.

    It keeps the size, or with `padded=False` reads no pixel outside.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        stride: int = 1,
        padded: bool = True,
        **init: Unpack[Init],
    ):
        kernel = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        padding = [(side // 2, side // 2) if padded else (0, 0) for side in kernel]
        self.conv = nnx.Conv(in_channels, out_channels, kernel, strides=stride, padding=padding, use_bias=False, **init)
        self.bn = BatchNorm(out_channels, epsilon=EPSILON, **init)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """Nothing is learned: the statistics stay."""
        return nnx.relu(self.bn(self.conv(x), train=False))


class InceptionA(nnx.Module):
    """Fields of 1, 5 and twice 3 pixels side by side, and a pool."""

    def __init__(self, in_channels: int, pool_channels: int, unit: int, **init: Unpack[Init]):
        conv = functools.partial(ConvNorm, **init)
        self.branch1x1 = conv(in_channels, 4 * unit, 1)
        self.branch5x5_1 = conv(in_channels, 3 * unit, 1)
        self.branch5x5_2 = conv(3 * unit, 4 * unit, 5)
        self.branch3x3dbl_1 = conv(in_channels, 4 * unit, 1)
        self.branch3x3dbl_2 = conv(4 * unit, 6 * unit, 3)
        self.branch3x3dbl_3 = conv(6 * unit, 6 * unit, 3)
        self.branch_pool = conv(in_channels, pool_channels, 1)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W D"]:
        """14 units, and the pool's channels."""
        narrow = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return jnp.concatenate([self.branch1x1(x), narrow, double, self.branch_pool(_average(x))], axis=-1)


class InceptionB(nnx.Module):
    """Halves the size."""

    def __init__(self, in_channels: int, unit: int, **init: Unpack[Init]):
        conv = functools.partial(ConvNorm, **init)
        self.branch3x3 = conv(in_channels, 24 * unit, 3, stride=2, padded=False)
        self.branch3x3dbl_1 = conv(in_channels, 4 * unit, 1)
        self.branch3x3dbl_2 = conv(4 * unit, 6 * unit, 3)
        self.branch3x3dbl_3 = conv(6 * unit, 6 * unit, 3, stride=2, padded=False)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """30 units, and the input's channels."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return jnp.concatenate([self.branch3x3(x), double, _halved(x)], axis=-1)


class InceptionC(nnx.Module):
    """Fields of 1, 7 and twice 7 pixels, these by rows and columns in turn, and a pool."""

    def __init__(self, in_channels: int, inner: int, unit: int, **init: Unpack[Init]):
        conv = functools.partial(ConvNorm, **init)
        out, row, column = 12 * unit, (1, 7), (7, 1)
        self.branch1x1 = conv(in_channels, out, 1)
        self.branch7x7_1 = conv(in_channels, inner, 1)
        self.branch7x7_2 = conv(inner, inner, row)
        self.branch7x7_3 = conv(inner, out, column)
        self.branch7x7dbl_1 = conv(in_channels, inner, 1)
        self.branch7x7dbl_2 = conv(inner, inner, column)
        self.branch7x7dbl_3 = conv(inner, inner, row)
        self.branch7x7dbl_4 = conv(inner, inner, column)
        self.branch7x7dbl_5 = conv(inner, out, row)
        self.branch_pool = conv(in_channels, out, 1)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W D"]:
        """48 units."""
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return jnp.concatenate([self.branch1x1(x), single, double, self.branch_pool(_average(x))], axis=-1)


class InceptionD(nnx.Module):
    """Halves the size once more."""

    def __init__(self, in_channels: int, unit: int, **init: Unpack[Init]):
        conv = functools.partial(ConvNorm, **init)
        self.branch3x3_1 = conv(in_channels, 12 * unit, 1)
        self.branch3x3_2 = conv(12 * unit, 20 * unit, 3, stride=2, padded=False)
        self.branch7x7x3_1 = conv(in_channels, 12 * unit, 1)
        self.branch7x7x3_2 = conv(12 * unit, 12 * unit, (1, 7))
        self.branch7x7x3_3 = conv(12 * unit, 12 * unit, (7, 1))
        self.branch7x7x3_4 = conv(12 * unit, 12 * unit, 3, stride=2, padded=False)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """32 units, and the input's channels."""
        large = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return jnp.concatenate([self.branch3x3_2(self.branch3x3_1(x)), self.branch7x7x3_4(large), _halved(x)], axis=-1)


class InceptionE(nnx.Module):
    """Fields whose rows and columns stand side by side, and a pool: of the average, or with `maximum` of that."""

    def __init__(self, in_channels: int, unit: int, maximum: bool, **init: Unpack[Init]):
        conv = functools.partial(ConvNorm, **init)
        self.branch1x1 = conv(in_channels, 20 * unit, 1)
        self.branch3x3_1 = conv(in_channels, 24 * unit, 1)
        self.branch3x3_2a = conv(24 * unit, 24 * unit, (1, 3))
        self.branch3x3_2b = conv(24 * unit, 24 * unit, (3, 1))
        self.branch3x3dbl_1 = conv(in_channels, 28 * unit, 1)
        self.branch3x3dbl_2 = conv(28 * unit, 24 * unit, 3)
        self.branch3x3dbl_3a = conv(24 * unit, 24 * unit, (1, 3))
        self.branch3x3dbl_3b = conv(24 * unit, 24 * unit, (3, 1))
        self.branch_pool = conv(in_channels, 12 * unit, 1)
        self.maximum = maximum

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W D"]:
        """128 units."""
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pool = nnx.max_pool(x, (3, 3), padding=((1, 1), (1, 1))) if self.maximum else _average(x)
        branches = [
            self.branch1x1(x),
            self.branch3x3_2a(single),
            self.branch3x3_2b(single),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(pool),
        ]
        return jnp.concatenate(branches, axis=-1)


class InceptionV3(nnx.Module):
    """The network without its auxiliary classifier.

    Args:
        config: the sizes.
        rngs: source of the random initial weights.
        dtype: dtype of the computation; normalization is in float32 all the same.
        param_dtype: dtype the weights are kept in; running statistics are in float32 all the same.
    """

    def __init__(
        self,
        config: InceptionConfig,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ):
        init = Init(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.config, unit = config, config.unit
        conv = functools.partial(ConvNorm, **init)
        self.Conv2d_1a_3x3 = conv(3, 2 * unit, 3, stride=2, padded=False)
        self.Conv2d_2a_3x3 = conv(2 * unit, 2 * unit, 3, padded=False)
        self.Conv2d_2b_3x3 = conv(2 * unit, 4 * unit, 3)
        self.Conv2d_3b_1x1 = conv(4 * unit, 5 * unit, 1)
        self.Conv2d_4a_3x3 = conv(5 * unit, 12 * unit, 3, padded=False)
        self.Mixed_5b = InceptionA(12 * unit, 2 * unit, unit, **init)
        self.Mixed_5c = InceptionA(16 * unit, 4 * unit, unit, **init)
        self.Mixed_5d = InceptionA(18 * unit, 4 * unit, unit, **init)
        self.Mixed_6a = InceptionB(18 * unit, unit, **init)
        self.Mixed_6b = InceptionC(48 * unit, 8 * unit, unit, **init)
        self.Mixed_6c = InceptionC(48 * unit, 10 * unit, unit, **init)
        self.Mixed_6d = InceptionC(48 * unit, 10 * unit, unit, **init)
        self.Mixed_6e = InceptionC(48 * unit, 12 * unit, unit, **init)
        self.Mixed_7a = InceptionD(48 * unit, unit, **init)
        self.Mixed_7b = InceptionE(80 * unit, unit, maximum=False, **init)
        self.Mixed_7c = InceptionE(FEATURES * unit, unit, maximum=True, **init)
        self.fc = Linear(config.num_features, config.num_classes, **init)

    def __call__(self, x: Float[Array, "B H W 3"]) -> Float[Array, "B D"]:
        """The features (`pool3`) of RGB images in [-1, 1], not resized, at least 75 pixels a side."""
        x = _halved(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = _halved(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean(axis=(1, 2))

    def logits(self, features: Float[Array, "B D"]) -> Float[Array, "B classes"]:
        """The classifier, which FID doesn't ask and the Inception Score does."""
        return self.fc(features)


@jit
def features(network: InceptionV3, images: Images) -> Float[Array, "B D"]:
    """The features of each image by the field's protocol (BasicSR, VQFR, pytorch-fid): resized without antialiasing.

    In float32 throughout, on GPU and TPU too.

    Args:
        network: the network (see `load`).
        images: RGB of any size, uint8, or floats in [-1, 1], which are rounded to 8 bits first.

    Raises:
        InterLCMError: they aren't images.
    """
    size = network.config.image_size
    with jax.default_matmul_precision("highest"):
        return network(bilinear_resize(to_float(levels(images)), (size, size)))


def load(
    path: str | Path, *, config: InceptionConfig | None = None, sharding: ShardingRule | None = None
) -> InceptionV3:
    """Loads the published `pt_inception-2015-12-05-6726825d.pth`, or what `weights.save` made of it.

    Args:
        path: the file.
        config: the network's sizes; None is the published one's.
        sharding: where each weight goes; None is the default device.

    Raises:
        InterLCMError: there is no such file (the message says which one is meant and where it is published), or it is
            a .pth and PyTorch isn't installed.
        WeightsError: the weights don't fit, or aren't whole or finite; every offending key is named.
    """
    sizes = config or InceptionConfig()
    tensors = read_published(path, INCEPTION)
    return build(lambda rngs: InceptionV3(sizes, rngs=rngs), tensors, TABLE, path, sharding)


def _average(x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    return nnx.avg_pool(x, (3, 3), padding=((1, 1), (1, 1)), count_include_pad=False)


def _halved(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    return nnx.max_pool(x, (3, 3), strides=(2, 2))
