"""Sizes of the UNet of Stable Diffusion 1.x, as its published `config.json` has them."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Self

from interlcm_jax.models.config import MOST_LAYERS, NetworkConfig, indivisible


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

    def contradictions(self) -> list[str]:
        """Block types that aren't known or not one for each width; widths that groups or heads don't divide."""
        problems, widths = [], self.block_out_channels
        for name, known in self.BLOCK_TYPES.items():
            types = getattr(self, name)
            if len(types) != len(widths) or not set(types) <= set(known):
                wanted = f"{len(widths)} of {' and '.join(known)}"
                problems.append(f"{name}={list(types)} (only {wanted} are implemented)")
        problems += indivisible("block_out_channels", widths, "norm_num_groups", self.norm_num_groups)
        layers = len(widths) * self.layers_per_block * self.transformer_layers_per_block
        if layers > MOST_LAYERS:
            problems.append(f"{layers} transformer blocks on the way down (at most {MOST_LAYERS})")
        # The mid block attends too.
        attending = [width for width, kind in zip(widths, self.down_block_types, strict=False) if "CrossAttn" in kind]
        heads = self.RENAMED["num_heads"]
        return problems + indivisible("block_out_channels", [*attending, widths[-1]], heads, self.num_heads)

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
