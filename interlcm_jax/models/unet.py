"""The LCM UNet: Stable Diffusion 1.5's UNet2DConditionModel with a guidance embedding."""

from collections.abc import Collection

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num

from interlcm_jax.errors import InterLCMError
from interlcm_jax.models.config import check_config
from interlcm_jax.models.embeddings import TimestepEmbedding, timestep_embedding
from interlcm_jax.models.layers import Conv, GroupNorm, check_batch, check_remat, check_shape, recomputes
from interlcm_jax.models.unet_blocks import BlockKeyValues, DownBlock2D, MidBlock2D, UpBlock2D
from interlcm_jax.models.unet_config import UNetConfig

# One number for each example or one for all, an array or a plain number.
Timesteps = Num[Array | np.ndarray, "b"] | Num[Array | np.ndarray, ""] | int | float


class UNetEncoder(nnx.Module):
    """What UNet and ControlNet share: time embedding, first convolution, down blocks and mid block."""

    def __init__(self, config: UNetConfig, *, rngs, dtype, param_dtype, remat: bool | Collection[str]):
        check_config(config, UNetConfig)
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

    def embed_time(self, timesteps: Timesteps, timestep_cond: Float[Array, "b G"] | None = None) -> Float[Array, "b E"]:
        """Time embedding of each timestep (0 to 999), joined with the guidance embedding where one is given.

        Raises:
            InterLCMError: the timesteps are no row of numbers, or the guidance embedding isn't one of this network.
        """
        if timestep_cond is not None:
            if self.config.time_cond_proj_dim is None:
                raise InterLCMError("timestep_cond is given, but this network takes none: it isn't an LCM's")
            check_shape("timestep_cond", timestep_cond, "B", self.config.time_cond_proj_dim)
        emb = timestep_embedding(_row(timesteps), self.time_channels).astype(self.dtype)
        cond = None if timestep_cond is None else timestep_cond.astype(self.dtype)
        return self.time_embedding(emb, cond)

    def key_values(self, context: Float[Array, "B T D"]) -> list[BlockKeyValues]:
        """The context's keys and values for every cross-attention, block by block; the same at every step.

        Raises:
            InterLCMError: the context's width is another.
        """
        check_shape("context", context, "B", "T", self.config.cross_attention_dim)
        context = context.astype(self.dtype)
        return [block.key_values(context) for block in self._blocks()]

    def _blocks(self) -> list[nnx.Module]:
        return [*self.down_blocks, self.mid_block]

    def _encode(self, x: Array, temb: Array, key_values: list[BlockKeyValues]) -> tuple[Array, list[Array]]:
        """Runs down blocks and mid block on conv_in's output; returns the mid block's output and all skips."""
        check_batch("the time embedding", temb, len(x))
        for projected in jax.tree.leaves(key_values)[:1]:
            check_batch("the context", projected, len(x))
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
        timesteps: Timesteps,
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

        Raises:
            InterLCMError: an argument's shape, or the number of timesteps or residuals, doesn't fit this network.
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
        check_shape("latents", latents, "B", "H", "W", self.config.in_channels)
        x, skips = self._encode(self.conv_in(latents.astype(self.dtype)), temb, key_values)
        if down_residuals is not None:
            if len(down_residuals) != len(skips):
                raise InterLCMError(f"{len(down_residuals)} down_residuals given, but this network takes {len(skips)}")
            places = [f"down_residuals[{i}]" for i in range(len(skips))]
            skips = [self._plus(*each) for each in zip(skips, places, down_residuals, strict=True)]
        if mid_residual is not None:
            x = self._plus(x, "mid_residual", mid_residual)
        up_key_values = key_values[len(self.down_blocks) + 1 :]
        for block, block_key_values in zip(self.up_blocks, up_key_values, strict=True):
            count = len(block.resnets)
            skips, own = skips[:-count], skips[-count:]
            x = block(x, temb, block_key_values, own, skips[-1].shape[1:3] if skips else None)
        return self.conv_out(jax.nn.silu(self.conv_norm_out(x))).astype(jnp.float32)

    def _plus(self, x: Array, name: str, residual: Array) -> Array:
        check_shape(name, residual, "B", *x.shape[1:])
        check_batch(name, residual, len(x))
        return x + residual.astype(self.dtype)

    def _blocks(self) -> list[nnx.Module]:
        return [*super()._blocks(), *self.up_blocks]


def _row(timesteps: Timesteps) -> Array | np.ndarray:
    """Timesteps as an array (b,).

    Raises:
        InterLCMError: they are neither a number nor a row of numbers.
    """
    row = np.asarray(timesteps, np.float32) if isinstance(timesteps, int | float) else timesteps
    if isinstance(row, jax.Array | np.ndarray | np.number) and row.ndim < 2 and jnp.isrealobj(row) and row.size:
        return row.reshape(-1)
    found = f"{row.dtype} {row.shape}" if hasattr(row, "shape") else f"of type {type(row).__name__}"
    raise InterLCMError(f"timesteps are {found}, but must be a number from 0 to 999, or an array (B,) of them")
