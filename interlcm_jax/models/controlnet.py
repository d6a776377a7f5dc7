"""ControlNet: the Spatial Encoder of InterLCM, which turns latents and LQ image into residuals for the UNet."""

import dataclasses
import itertools
from collections.abc import Collection
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from interlcm_jax.errors import InterLCMError
from interlcm_jax.models.config import check_config
from interlcm_jax.models.layers import Conv, Init, call, check_batch, check_shape, recomputes
from interlcm_jax.models.unet import Timesteps, UNetConfig, UNetEncoder
from interlcm_jax.models.unet_blocks import BlockKeyValues
from interlcm_jax.models.weights import abstract, flat_weights

# What a UNet's config tells and a ControlNet's doesn't: it has no up blocks, output or guidance embedding.
_ABSENT = ("out_channels", "up_block_types", "time_cond_proj_dim")


@dataclasses.dataclass(frozen=True)
class ControlNetConfig(UNetConfig):
    """Sizes of a ControlNet: those of its UNet's down path, and of the conditioning stack.

    Attributes:
        conditioning_channels: channels of the conditioning image.
        conditioning_embedding_out_channels: widths of the conditioning stack; each after the first halves the size.
    """

    conditioning_channels: int = 3
    conditioning_embedding_out_channels: tuple[int, ...] = (16, 32, 96, 256)

    BLOCK_TYPES: ClassVar = {"down_block_types": UNetConfig.BLOCK_TYPES["down_block_types"]}
    FIXED: ClassVar = {
        **{
            k: v
            for k, v in UNetConfig.FIXED.items()
            if not k.startswith(
                ("center", "conv_", "cross", "dual", "mid_block_only", "resnet_out", "resnet_skip", "reverse", "time")
            )
        },
        "_class_name": "ControlNetModel",
        "controlnet_conditioning_channel_order": "rgb",
        "global_pool_conditions": False,
    }

    @classmethod
    def sd15(cls) -> Self:
        """The ControlNet of Stable Diffusion 1.5 (361.3 M), which is InterLCM's Spatial Encoder."""
        return cls()

    @classmethod
    def miniature(cls) -> Self:
        """The smallest ControlNet with every kind of block; fits `UNetConfig.miniature()`."""
        return cls.from_unet(UNetConfig.miniature(), conditioning_embedding_out_channels=(4, 8, 8, 16))

    @classmethod
    def from_unet(cls, unet: UNetConfig, **changes: Any) -> Self:
        """The ControlNet that fits a UNet; it has no guidance embedding."""
        shared = {key: value for key, value in dataclasses.asdict(unet).items() if key not in _ABSENT}
        return cls(**{**shared, **changes})

    def to_json(self) -> dict[str, Any]:
        """The published `config.json`."""
        return {key: value for key, value in super().to_json().items() if key not in _ABSENT}

    def block_names(self) -> list[str]:
        """The blocks that can be rematerialized, by the names they go by in `remat`."""
        return ["controlnet_cond_embedding", *(name for name in super().block_names() if not name.startswith("up_"))]


class ControlNetConditioningEmbedding(nnx.Module):
    """Convolutions that bring the conditioning image to the latents' size and the UNet's width."""

    def __init__(self, config: ControlNetConfig, remat: bool, **init: Any):
        widths = config.conditioning_embedding_out_channels
        self.conv_in = Conv(config.conditioning_channels, widths[0], **init)
        blocks = []
        for narrow, wide in itertools.pairwise(widths):
            blocks += [Conv(narrow, narrow, **init), Conv(narrow, wide, stride=2, **init)]
        self.blocks = nnx.List(blocks)
        self.conv_out = Conv(widths[-1], config.block_out_channels[0], zero_init=True, **init)
        self.remat = remat

    def __call__(self, image: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """SiLU after each convolution but the last."""
        return call(self._embed, image, remat=self.remat)

    def _embed(self, x: Array) -> Array:
        x = jax.nn.silu(self.conv_in(x))
        for block in self.blocks:
            x = jax.nn.silu(block(x))
        return self.conv_out(x)


class ControlNet(UNetEncoder):
    """Residuals for each skip connection and the mid block of a UNet, from latents, context and an image.

    Equals diffusers' `ControlNetModel`. Its output convolutions start at zero, so that at first it changes nothing
    (Zhang et al. 2023, section 3.1).

    Args:
        config: sizes.
        rngs: random streams of the initial weights.
        dtype: compute dtype; norms and softmax stay float32.
        param_dtype: storage dtype.
        remat: blocks whose activations the backward pass recomputes: all, none, or names such as `down_blocks.0`;
            an `InterLCMError` lists them where there is no such block.
    """

    def __init__(
        self,
        config: ControlNetConfig,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        remat: bool | Collection[str] = False,
    ):
        check_config(config, ControlNetConfig)
        super().__init__(config, rngs=rngs, dtype=dtype, param_dtype=param_dtype, remat=remat)
        init: Init = {"rngs": rngs, "dtype": dtype, "param_dtype": param_dtype}
        self.controlnet_cond_embedding = ControlNetConditioningEmbedding(
            config, recomputes(remat, "controlnet_cond_embedding"), **init
        )
        widths = config.skip_channels()
        self.controlnet_down_blocks = nnx.List([Conv(w, w, 1, zero_init=True, **init) for w in widths])
        self.controlnet_mid_block = Conv(widths[-1], widths[-1], 1, zero_init=True, **init)

    @classmethod
    def from_unet(cls, unet: UNetEncoder, config: ControlNetConfig, *, rngs: nnx.Rngs, **options: Any) -> Self:
        """A ControlNet that starts as training starts it: the UNet's down path, and output convolutions of zero.

        Args:
            unet: the UNet whose weights are taken; its arrays are shared where the dtype is the same.
            config: sizes; must fit the UNet's.
            rngs: random streams of the conditioning stack's initial weights.
            **options: the constructor's `dtype`, `param_dtype` and `remat`.

        Raises:
            InterLCMError: the sizes don't fit; every weight that the UNet hasn't is named.
        """
        # Made without weights: to draw initial ones for the whole down path would be in vain.
        controlnet = abstract(lambda rngs: cls(config, rngs=rngs, **options))
        start_from_unet(controlnet, unet)
        stack = controlnet.controlnet_cond_embedding
        dtypes = {name: options.get(name, jnp.float32) for name in ("dtype", "param_dtype")}
        controlnet.controlnet_cond_embedding = type(stack)(config, stack.remat, rngs=rngs, **dtypes)
        return controlnet

    def embed_condition(self, image: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """Features of the conditioning image, at the latents' size; the same at every step.

        Raises:
            InterLCMError: the image's shape doesn't fit this network.
        """
        check_shape("image", image, "B", "H", "W", self.config.conditioning_channels)
        return self.controlnet_cond_embedding(image.astype(self.dtype))

    def __call__(
        self,
        latents: Float[Array, "B h w C"],
        timesteps: Timesteps,
        context: Float[Array, "B T D"],
        image: Float[Array, "B H W 3"],
    ) -> tuple[list[Array], Array]:
        """Returns (down_residuals, mid_residual) for `UNet2DCondition`.

        Args:
            latents: noisy latents.
            timesteps: 0 to 999, one for each example or one for all.
            context: tokens that the cross-attentions read.
            image: the conditioning image in [-1, 1], eight times the latents' size at the released sizes.

        Raises:
            InterLCMError: an argument's shape, or the number of timesteps, doesn't fit this network.
        """
        return self.residuals(
            latents, self.embed_time(timesteps), self.key_values(context), self.embed_condition(image)
        )

    def residuals(
        self,
        latents: Float[Array, "B h w C"],
        temb: Float[Array, "b E"],
        key_values: list[BlockKeyValues],
        condition: Float[Array, "B h w D"],
    ) -> tuple[list[Array], Array]:
        """`__call__` with what doesn't depend on the latents computed before."""
        check_shape("latents", latents, "B", "H", "W", self.config.in_channels)
        if condition.shape[1:3] != latents.shape[1:3]:
            times = 2 ** (len(self.config.conditioning_embedding_out_channels) - 1)
            raise InterLCMError(
                f"the image is encoded to {condition.shape[1:3]}, but the latents are {latents.shape[1:3]}: it must be "
                f"{times} times as high and wide as they are"
            )
        check_batch("the image", condition, len(latents))
        x, skips = self._encode(self.conv_in(latents.astype(self.dtype)) + condition, temb, key_values)
        down = [conv(skip) for conv, skip in zip(self.controlnet_down_blocks, skips, strict=True)]
        return down, self.controlnet_mid_block(x)


def start_from_unet(controlnet: ControlNet, unet: UNetEncoder) -> None:
    """Gives a ControlNet, which may be `abstract`, the UNet's down path; its output convolutions become zero.

    The conditioning stack stays as it is.

    Raises:
        InterLCMError: the sizes don't fit; every weight that the UNet hasn't is named.
    """
    own, theirs = flat_weights(controlnet), flat_weights(unet)
    taken = [path for path in own if not path.startswith("controlnet_")]
    if lacking := [p for p in taken if p not in theirs or theirs[p].shape != own[p].shape]:
        raise InterLCMError(f"the UNet doesn't fit: it has no {', '.join(f'{p} {own[p].shape}' for p in lacking)}")
    for path, weight in own.items():
        if path in taken:
            weight.set_value(theirs[path].get_value().astype(weight.dtype))
        elif not path.startswith("controlnet_cond_embedding"):
            weight.set_value(jnp.zeros(weight.shape, weight.dtype))
