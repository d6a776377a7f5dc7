"""The autoencoder of Stable Diffusion 1.5 (Rombach et al. 2022; `AutoencoderKL` in diffusers)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self, Unpack

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from interlcm_jax.errors import InterLCMError
from interlcm_jax.models.config import NetworkConfig, check_config, indivisible
from interlcm_jax.models.layers import Conv, GroupNorm, Init, call, check_shape
from interlcm_jax.models.vae_blocks import EPSILON, Attention, Downsample, ResnetBlock, Upsample


@dataclasses.dataclass(frozen=True)
class VAEConfig(NetworkConfig):
    """Sizes of the autoencoder; the defaults are Stable Diffusion 1.5's, which LCM_Dreamshaper_v7 shares.

    Attributes:
        in_channels: channels of the image that is encoded.
        out_channels: channels of the image that is decoded.
        block_out_channels: width of each level; every level but the last halves the resolution.
        layers_per_block: resnets of a level in the encoder; the decoder has one more.
        latent_channels: channels of the latents.
        norm_num_groups: groups of every GroupNorm.
        scaling_factor: what the diffusion model's latents are multiples of; applied by the pipeline, not here.
        decoder_block_out_channels: width of each level of a decoder that isn't the encoder's mirror, named from the
            image's side as `block_out_channels`; None: the mirror, as in every published `AutoencoderKL`.

    Raises:
        InterLCMError: the decoder has another number of levels than the encoder.
    """

    FIXED: ClassVar[Mapping[str, Any]] = {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "latents_mean": None,
        "latents_std": None,
        "mid_block_add_attention": True,
        "shift_factor": None,
        "use_post_quant_conv": True,
        "use_quant_conv": True,
    }

    in_channels: int = 3
    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    latent_channels: int = 4
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215
    decoder_block_out_channels: tuple[int, ...] | None = None

    def contradictions(self) -> list[str]:
        """Another number of levels in the decoder than in the encoder; widths that don't divide into groups."""
        widths = self.decoder_block_out_channels or self.block_out_channels
        problems = []
        if len(widths) != len(self.block_out_channels):
            problems.append(
                f"decoder_block_out_channels={widths} must have as many levels as block_out_channels="
                f"{self.block_out_channels}: each halves the resolution that the decoder doubles again"
            )
        names = {"block_out_channels": self.block_out_channels, "decoder_block_out_channels": widths}
        for name in names if self.decoder_block_out_channels else ["block_out_channels"]:
            problems += indivisible(name, names[name], "norm_num_groups", self.norm_num_groups)
        return problems

    @classmethod
    def miniature(cls) -> Self:
        """A network of the same make with 8 to 24 channels, for tests and trial runs."""
        return cls(block_out_channels=(8, 16, 24, 24), layers_per_block=1, norm_num_groups=4)

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Self:
        """Builds the config from a published `config.json`, already parsed; see `NetworkConfig.from_json`."""
        parsed = super().from_json(config)
        for key, types in parsed._block_types().items():
            if config.get(key, types) not in (types, tuple(types)):
                raise InterLCMError(f"{cls.__name__}: {key}={config[key]!r} (only {types!r} is implemented)")
        return parsed

    def to_json(self) -> dict[str, Any]:
        """The published `config.json` of this network; of a decoder of its own it names the widths."""
        published = {**super().to_json(), **self._block_types()}
        if self.decoder_block_out_channels is None:
            del published["decoder_block_out_channels"]
        return published

    def _block_types(self) -> dict[str, list[str]]:
        levels = len(self.block_out_channels)
        return {
            "down_block_types": ["DownEncoderBlock2D"] * levels,
            "up_block_types": ["UpDecoderBlock2D"] * levels,
        }


class DownBlock(nnx.Module):
    """One level of the encoder."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        config: VAEConfig,
        *,
        downsample: bool,
        remat: bool,
        **init: Unpack[Init],
    ):
        self.remat = remat
        widths = [in_channels] + [out_channels] * (config.layers_per_block - 1)
        self.resnets = nnx.List([ResnetBlock(width, out_channels, config.norm_num_groups, **init) for width in widths])
        self.downsamplers = nnx.List([Downsample(out_channels, **init)] if downsample else [])

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """Changes the width, then halves the resolution unless this is the last level."""
        for resnet in self.resnets:
            x = call(resnet, x, remat=self.remat)
        for downsampler in self.downsamplers:
            x = downsampler(x)
        return x


class UpBlock(nnx.Module):
    """One level of the decoder."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        config: VAEConfig,
        *,
        upsample: bool,
        remat: bool,
        **init: Unpack[Init],
    ):
        self.remat = remat
        widths = [in_channels] + [out_channels] * config.layers_per_block
        self.resnets = nnx.List([ResnetBlock(width, out_channels, config.norm_num_groups, **init) for width in widths])
        self.upsamplers = nnx.List([Upsample(out_channels, **init)] if upsample else [])

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B H W D"]:
        """Changes the width, then doubles the resolution unless this is the last level."""
        for resnet in self.resnets:
            x = call(resnet, x, remat=self.remat)
        for upsampler in self.upsamplers:
            x = upsampler(x)
        return x


class MidBlock(nnx.Module):
    """Resnet, attention, resnet at the lowest resolution."""

    def __init__(self, channels: int, num_groups: int, *, remat: bool, **init: Unpack[Init]):
        self.remat = remat
        self.resnets = nnx.List([ResnetBlock(channels, channels, num_groups, **init) for _ in range(2)])
        self.attentions = nnx.List([Attention(channels, num_groups, **init)])

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        """Mixes all positions."""
        for block in (self.resnets[0], self.attentions[0], self.resnets[1]):
            x = call(block, x, remat=self.remat)
        return x


class Encoder(nnx.Module):
    """Images to the moments of the latents, before `quant_conv`."""

    def __init__(self, config: VAEConfig, *, remat: bool, **init: Unpack[Init]):
        widths, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = Conv(config.in_channels, widths[0], **init)
        self.down_blocks = nnx.List(
            [
                DownBlock(previous, width, config, downsample=i + 1 < len(widths), remat=remat, **init)
                for i, (previous, width) in enumerate(zip((widths[0], *widths[:-1]), widths, strict=True))
            ]
        )
        self.mid_block = MidBlock(widths[-1], groups, remat=remat, **init)
        self.conv_norm_out = GroupNorm(widths[-1], groups, epsilon=EPSILON, **init)
        self.conv_out = Conv(widths[-1], 2 * config.latent_channels, **init)

    def __call__(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B h w moments"]:
        """Mean and log variance stand one after the other in the last axis."""
        x = self.conv_in(image)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(nnx.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nnx.Module):
    """Latents to images, after `post_quant_conv`."""

    def __init__(self, config: VAEConfig, *, remat: bool, **init: Unpack[Init]):
        widths = (config.decoder_block_out_channels or config.block_out_channels)[::-1]
        groups = config.norm_num_groups
        self.conv_in = Conv(config.latent_channels, widths[0], **init)
        self.mid_block = MidBlock(widths[0], groups, remat=remat, **init)
        self.up_blocks = nnx.List(
            [
                UpBlock(previous, width, config, upsample=i + 1 < len(widths), remat=remat, **init)
                for i, (previous, width) in enumerate(zip((widths[0], *widths[:-1]), widths, strict=True))
            ]
        )
        self.conv_norm_out = GroupNorm(widths[-1], groups, epsilon=EPSILON, **init)
        self.conv_out = Conv(widths[-1], config.out_channels, **init)

    def __call__(self, latents: Float[Array, "B h w L"]) -> Float[Array, "B H W 3"]:
        """The inverse of the encoder, roughly."""
        x = self.mid_block(self.conv_in(latents))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(nnx.silu(self.conv_norm_out(x)))


class AutoencoderKL(nnx.Module):
    """The variational autoencoder of Stable Diffusion 1.5: 8x8 pixels to one position of 4 channels, and back.

    Args:
        config: the sizes.
        rngs: source of the random initial weights.
        dtype: dtype of the computation; norms and softmax are in float32 all the same.
        param_dtype: dtype the weights are kept in.
        remat: recompute every resnet and attention in the backward pass instead of keeping its activations.
    """

    def __init__(
        self,
        config: VAEConfig,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        remat: bool = False,
    ):
        init = Init(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        check_config(config, VAEConfig)
        self.config = config
        self.encoder = Encoder(config, remat=remat, **init)
        self.decoder = Decoder(config, remat=remat, **init)
        self.quant_conv = Conv(2 * config.latent_channels, 2 * config.latent_channels, 1, **init)
        self.post_quant_conv = Conv(config.latent_channels, config.latent_channels, 1, **init)

    def encode(self, image: Float[Array, "B H W 3"]) -> tuple[Float[Array, "B h w L"], Float[Array, "B h w L"]]:
        """The posterior of the latents of images in [-1, 1], an eighth as high and wide (rounded down).

        Returns:
            Mean and log variance, unscaled: InterLCM's z0 is the mean times `config.scaling_factor`. The log variance
            is clipped to [-30, 20], as in diffusers.

        Raises:
            InterLCMError: the image's shape doesn't fit this network.
        """
        check_shape("image", image, "B", "H", "W", self.config.in_channels)
        mean, logvar = jnp.split(self.quant_conv(self.encoder(image)), 2, axis=-1)
        return mean, jnp.clip(logvar, -30.0, 20.0)

    def decode(self, latents: Float[Array, "B h w L"]) -> Float[Array, "B H W 3"]:
        """Images, nominally in [-1, 1] but not clipped, of unscaled latents (divided by `config.scaling_factor`).

        Raises:
            InterLCMError: the latents' shape doesn't fit this network.
        """
        check_shape("latents", latents, "B", "H", "W", self.config.latent_channels)
        return self.decoder(self.post_quant_conv(latents))
