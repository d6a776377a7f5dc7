"""The PatchGAN discriminator that InterLCM trains against (Isola et al. 2017; VQGAN's, Esser et al. 2021)."""

import dataclasses
import itertools
from typing import Self

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from interlcm_jax.models.config import NetworkConfig
from interlcm_jax.models.layers import BatchNorm, Conv, Init

MAX_WIDENING = 8  # the width stops growing at this multiple of the first


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig(NetworkConfig):
    """Sizes of the discriminator; the defaults are those InterLCM trains with.

    Attributes:
        in_channels: channels of the image.
        base_channels: width after the first convolution.
        num_layers: number of convolutions that halve the resolution.
    """

    in_channels: int = 3
    base_channels: int = 64
    num_layers: int = 4

    @classmethod
    def miniature(cls) -> Self:
        """Two halvings and 8 to 32 channels, for tests and trial runs."""
        return cls(base_channels=8, num_layers=2)

    @classmethod
    def small(cls) -> Self:
        """Three halvings and 32 to 256 channels, for faces of 256 x 256 pixels."""
        return cls(base_channels=32, num_layers=3)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels after every convolution but the last."""
        return tuple(self.base_channels * min(2**i, MAX_WIDENING) for i in range(self.num_layers + 1))


class LeakyReLU(nnx.Module):
    """Leaky rectifier with slope 0.2; a module so that layers count as in PyTorch's `Sequential`."""

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Scales negative values by 0.2."""
        return nnx.leaky_relu(x, 0.2)


class PatchDiscriminator(nnx.Module):
    """Scores overlapping patches of an image as real (above 0) or restored.

    `main` holds the layers in the order, and so with the numbers, of the PyTorch model's `Sequential`.

    Args:
        config: the sizes.
        rngs: source of the random initial weights.
        dtype: dtype of the computation; batch statistics are in float32 all the same.
        param_dtype: dtype the weights are kept in; running statistics are in float32 all the same.
    """

    def __init__(
        self,
        config: DiscriminatorConfig,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ):
        init = Init(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.config = config
        widths = config.widths
        layers = [Conv(config.in_channels, widths[0], 4, stride=2, padding=1, **init), LeakyReLU()]
        for i, (previous, width) in enumerate(itertools.pairwise(widths), start=1):
            stride = 2 if i < config.num_layers else 1
            layers += [
                Conv(previous, width, 4, stride=stride, padding=1, use_bias=False, **init),
                BatchNorm(width, **init),
                LeakyReLU(),
            ]
        self.main = nnx.List([*layers, Conv(widths[-1], 1, 4, padding=1, **init)])

    def __call__(self, image: Float[Array, "B H W 3"], train: bool) -> Float[Array, "B h w 1"]:
        """Logits of the patches of images in [-1, 1]; 512x512 pixels give 30x30 logits.

        Args:
            image: the images.
            train: normalize by the batch's statistics and move the running ones, instead of using these.
        """
        x = image
        for layer in self.main:
            x = layer(x, train) if isinstance(layer, BatchNorm) else layer(x)
        return x
