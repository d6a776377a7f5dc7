"""The LCM UNet: Stable Diffusion 1.5's UNet2DConditionModel with a guidance embedding."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from interlcm_jax.errors import InterLCMError
from interlcm_jax.models.config import NetworkConfig
from interlcm_jax.models.embeddings import TimestepEmbedding, timestep_embedding
from interlcm_jax.models.layers import Conv, GroupNorm, check_remat, recomputes
from interlcm_jax.models.unet_blocks import BlockKeyValues, DownBlock2D, MidBlock2D, UpBlock2D


@dataclasses.dataclass(frozen=True)
class UNetConfig(NetworkConfig):
    """Sizes of a Stable Diffusion 1.x UNet; the defaults are SD 1.5's, which has no guidance embedding.

    Attributes:
        in_channels: latent channels.
        out_channels: channels of the predicted noise.
        block_out_channels: width of each block, from the finest.
        down_block_types: diffusers' block names; those with `CrossAttn` attend to the context.
        up_block_types: the same from the coarsest.
        layers_per_block: resnets in each down block (one more in each up block).
        cross_attention_dim: width of the context's tokens.
        num_heads: attention heads, the same in every block. The published file calls it `attention_head_dim`.
        transformer_layers_per_block: transformer blocks in each attention.
        time_cond_proj_dim: width of the guidance embedding, None without one.
        norm_num_groups: groups of every GroupNorm.
        norm_eps: epsilon of the resnets' norms and of the last norm.
    """

    in_channels: int = 4
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    down_block_types: tuple[str, ...] = (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D")
    up_block_types: tuple[str, ...] = ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3)
    layers_per_block: int = 2
    cross_attention_dim: int = 768
    num_heads: int = 8
    transformer_layers_per_block: int = 1
    time_cond_proj_dim: int | None = None
    norm_num_groups: int = 32
    norm_eps: float = 1e-5

    RENAMED: ClassVar[Mapping[str, str]] = {"num_heads": "attention_head_dim"}
    BLOCK_TYPES: ClassVar[Mapping[str, Collection[str]]] = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }
    FIXED: ClassVar[Mapping[str, Any]] = {
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        "center_input_sample": False,
        "conv_in_kernel": 3,
        "conv_out_kernel": 3,
        "downsample_padding": 1,
        "dual_cross_attention": False,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "mid_block_scale_factor": 1,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "only_cross_attention": False,
        "resnet_out_scale_factor": 1.0,
        "resnet_skip_time_act": False,
        "resnet_time_scale_shift": "default",
        "time_embedding_type": "positional",
        "upcast_attention": False,
        "use_linear_projection": False,
        **dict.fromkeys(("addition_embed_type", "class_embed_type", "cross_attention_norm", "encoder_hid_dim")),
        **dict.fromkeys(("encoder_hid_dim_type", "mid_block_only_cross_attention", "num_attention_heads")),
        **dict.fromkeys(("num_class_embeds", "reverse_transformer_layers_per_block", "time_embedding_act_fn")),
        "timestep_post_act": None,
    }

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Self:
        """Builds the config from a published `config.json`, already parsed; see `NetworkConfig.from_json`."""
        parsed = super().from_json(config)
        for name, known in cls.BLOCK_TYPES.items():
            types = getattr(parsed, name)
            if len(types) != len(parsed.block_out_channels) or not set(types) <= set(known):
                wanted = f"{len(parsed.block_out_channels)} of {' and '.join(known)}"
                raise InterLCMError(f"{cls.__name__}: {name}={list(types)} (only {wanted} are implemented)")
        return parsed

    @classmethod
    def sd15(cls) -> Self:
        """Stable Diffusion 1.5 (859.5 M)."""
        return cls()

    @classmethod
    def lcm(cls) -> Self:
        """LCM_Dreamshaper_v7 (859.6 M): SD 1.5 with a guidance embedding 256 wide."""
        return cls(time_cond_proj_dim=256)

    @classmethod
    def miniature(cls) -> Self:
        """The smallest UNet with every kind of block, for tests."""
        return cls(
            block_out_channels=(16, 32),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=48,
            num_heads=2,
            time_cond_proj_dim=16,
            norm_num_groups=4,
        )

    def resnet(self) -> dict[str, Any]:
        """Settings of every resnet."""
        return {
            "temb_channels": self.block_out_channels[0] * 4,
            "num_groups": self.norm_num_groups,
            "epsilon": self.norm_eps,
        }

    def attention(self, block_type: str = "CrossAttn") -> dict[str, Any] | None:
        """Settings of a block's transformers, or None where its type doesn't attend."""
        if "CrossAttn" not in block_type:
            return None
        return {
            "num_heads": self.num_heads,
            "context_dim": self.cross_attention_dim,
            "num_groups": self.norm_num_groups,
            "num_layers": self.transformer_layers_per_block,
        }

    def skip_channels(self) -> list[int]:
        """Widths of the skip connections, in the order the down path makes them."""
        widths, last = self.block_out_channels, len(self.block_out_channels) - 1
        skips = [widths[0]]
        for i, width in enumerate(widths):
            skips += [width] * (self.layers_per_block + (i < last))
        return skips

    def block_names(self) -> list[str]:
        """The blocks that can be rematerialized, by the names they go by in `remat`."""
        down = [f"down_blocks.{i}" for i in range(len(self.down_block_types))]
        return [*down, "mid_block", *(f"up_blocks.{i}" for i in range(len(self.up_block_types)))]


class UNetEncoder(nnx.Module):
    """What UNet and ControlNet share: time embedding, first convolution, down blocks and mid block."""

    def __init__(self, config: UNetConfig, *, rngs, dtype, param_dtype, remat: bool | Collection[str]):
        check_remat(remat, config.block_names())
        init = {"rngs": rngs, "dtype": dtype, "param_dtype": param_dtype}
        widths = config.block_out_channels
        self.config, self.time_channels = config, widths[0]
        self.time_embedding = TimestepEmbedding(widths[0], 4 * widths[0], config.time_cond_proj_dim, **init)
        self.conv_in = Conv(config.in_channels, widths[0], **init)
        self.down_blocks = nnx.List(
            [
                DownBlock2D(
                    widths[max(i - 1, 0)],
                    widths[i],
                    num_layers=config.layers_per_block,
                    resnet=config.resnet(),
                    attention=config.attention(block_type),
                    downsample=i < len(widths) - 1,
                    remat=recomputes(remat, f"down_blocks.{i}"),
                    **init,
                )
                for i, block_type in enumerate(config.down_block_types)
            ]
        )
        self.mid_block = MidBlock2D(
            widths[-1],
            resnet=config.resnet(),
            attention=config.attention(),
            remat=recomputes(remat, "mid_block"),
            **init,
        )
        self.dtype = dtype

    def embed_time(
        self, timesteps: Float[Array | np.ndarray, "b"], timestep_cond: Float[Array, "b G"] | None = None
    ) -> Float[Array, "b E"]:
        """Time embedding of each timestep (0 to 999), joined with the guidance embedding where one is given."""
        emb = timestep_embedding(timesteps, self.time_channels).astype(self.dtype)
        cond = None if timestep_cond is None else timestep_cond.astype(self.dtype)
        return self.time_embedding(emb, cond)

    def key_values(self, context: Float[Array, "B T D"]) -> list[BlockKeyValues]:
        """The context's keys and values for every cross-attention, block by block; the same at every step."""
        context = context.astype(self.dtype)
        return [block.key_values(context) for block in self._blocks()]

    def _blocks(self) -> list[nnx.Module]:
        return [*self.down_blocks, self.mid_block]

    def _encode(self, x: Array, temb: Array, key_values: list[BlockKeyValues]) -> tuple[Array, list[Array]]:
        """Runs down blocks and mid block on conv_in's output; returns the mid block's output and all skips."""
        skips = [x]
        for block, block_key_values in zip(self.down_blocks, key_values[: len(self.down_blocks)], strict=True):
            x, block_skips = block(x, temb, block_key_values)
            skips += block_skips
        return self.mid_block(x, temb, key_values[len(self.down_blocks)]), skips


class UNet2DCondition(UNetEncoder):
    """Predicts the noise in latents, given timestep, context, guidance embedding and ControlNet residuals.

    Equals diffusers' `UNet2DConditionModel` for Stable Diffusion 1.x and LCMs distilled from it.

    Args:
        config: sizes.
        rngs: random streams of the initial weights.
        dtype: compute dtype; norms and softmax stay float32.
        param_dtype: storage dtype.
        remat: blocks whose activations the backward pass recomputes: all, none, or names such as `up_blocks.2`;
            an `InterLCMError` lists them where there is no such block.
    """

    def __init__(
        self,
        config: UNetConfig,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        remat: bool | Collection[str] = False,
    ):
        super().__init__(config, rngs=rngs, dtype=dtype, param_dtype=param_dtype, remat=remat)
        init = {"rngs": rngs, "dtype": dtype, "param_dtype": param_dtype}
        widths = config.block_out_channels[::-1]
        skips = config.skip_channels()
        self.up_blocks = nnx.List(
            [
                UpBlock2D(
                    widths[max(i - 1, 0)],
                    widths[i],
                    [skips.pop() for _ in range(config.layers_per_block + 1)],
                    resnet=config.resnet(),
                    attention=config.attention(block_type),
                    upsample=i < len(widths) - 1,
                    remat=recomputes(remat, f"up_blocks.{i}"),
                    **init,
                )
                for i, block_type in enumerate(config.up_block_types)
            ]
        )
        self.conv_norm_out = GroupNorm(widths[-1], config.norm_num_groups, epsilon=config.norm_eps, **init)
        self.conv_out = Conv(widths[-1], config.out_channels, **init)

    def __call__(
        self,
        latents: Float[Array, "B H W C"],
        timesteps: Float[Array | np.ndarray, "b"],
        context: Float[Array, "B T D"],
        timestep_cond: Float[Array, "b G"] | None = None,
        down_residuals: list[Array] | None = None,
        mid_residual: Array | None = None,
    ) -> Float[Array, "B H W C"]:
        """Predicts eps, float32.

        Args:
            latents: noisy latents.
            timesteps: 0 to 999, one for each example or one for all.
            context: tokens that the cross-attentions read.
            timestep_cond: guidance embedding.
            down_residuals: the ControlNet's, added to the skip connections.
            mid_residual: the ControlNet's, added after the mid block.
        """
        temb, key_values = self.embed_time(timesteps, timestep_cond), self.key_values(context)
        return self.denoise(latents, temb, key_values, down_residuals, mid_residual)

    def denoise(
        self,
        latents: Float[Array, "B H W C"],
        temb: Float[Array, "b E"],
        key_values: list[BlockKeyValues],
        down_residuals: list[Array] | None = None,
        mid_residual: Array | None = None,
    ) -> Float[Array, "B H W C"]:
        """`__call__` with what doesn't depend on the latents (`embed_time`, `key_values`) computed before."""
        x, skips = self._encode(self.conv_in(latents.astype(self.dtype)), temb, key_values)
        if down_residuals is not None:
            skips = [s + r.astype(self.dtype) for s, r in zip(skips, down_residuals, strict=True)]
        if mid_residual is not None:
            x = x + mid_residual.astype(self.dtype)
        up_key_values = key_values[len(self.down_blocks) + 1 :]
        for block, block_key_values in zip(self.up_blocks, up_key_values, strict=True):
            count = len(block.resnets)
            skips, own = skips[:-count], skips[-count:]
            x = block(x, temb, block_key_values, own, skips[-1].shape[1:3] if skips else None)
        return self.conv_out(jax.nn.silu(self.conv_norm_out(x))).astype(jnp.float32)

    def _blocks(self) -> list[nnx.Module]:
        return [*super()._blocks(), *self.up_blocks]
