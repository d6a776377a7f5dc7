"""InterLCM's Visual Encoder (arXiv 2502.02215): turns CLIP's image tokens into the UNet's 77 context tokens.

It is the decoder of a VQGAN in one dimension, lying across the tokens: **tokens are its channels, and it convolves
along the features**.
"""

import dataclasses
import itertools
from typing import Literal, NamedTuple, Self, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from interlcm_jax.models.config import NetworkConfig, check_config, indivisible
from interlcm_jax.models.kernels.attention import dot_product_attention
from interlcm_jax.models.layers import GroupNorm, Init, call, check_shape, nearest_resize


class Block(NamedTuple):
    """What stands at one place of the network."""

    kind: Literal["conv", "resize", "res", "attn", "norm"]
    in_channels: int
    out_channels: int


@dataclasses.dataclass(frozen=True)
class VisualEncoderConfig(NetworkConfig):
    """Sizes of a Visual Encoder; the defaults are the released model's, 13.0 M parameters.

    Attributes:
        tokens: CLIP's tokens, the channels that come in.
        context_tokens: the UNet's context tokens, the channels that go out.
        features: CLIP's width, which is the UNet's context width too: the length convolved along.
        block_out_channels: channels of each level, from the last to the first that the data sees: 64 x (2, 4, 8).
        attention: for each of these levels, whether an attention follows every residual block.
        layers_per_block: residual blocks a level.
        norm_num_groups: groups of every GroupNorm.
        norm_eps: epsilon of every GroupNorm.

    Raises:
        InterLCMError: the sizes contradict each other.
    """

    tokens: int = 197
    context_tokens: int = 77
    features: int = 768
    block_out_channels: tuple[int, ...] = (128, 256, 512)
    attention: tuple[bool, ...] = (False, False, True)
    layers_per_block: int = 2
    norm_num_groups: int = 32
    norm_eps: float = 1e-6

    def contradictions(self) -> list[str]:
        """Sizes that don't go together: see the class."""
        problems = []
        if self.features % 3:
            problems.append(f"features {self.features} isn't a multiple of 3")
        if len(self.block_out_channels) % 3 or not self.block_out_channels:
            # Each level resizes the features once, and only after three are they as many as at first.
            problems.append(f"{len(self.block_out_channels)} levels isn't a multiple of 3")
        if len(self.attention) != len(self.block_out_channels):
            problems.append(f"attention tells of {len(self.attention)} levels of {len(self.block_out_channels)}")
        widths = self.block_out_channels
        return problems + indivisible("block_out_channels", widths, "norm_num_groups", self.norm_num_groups)

    @classmethod
    def miniature(cls) -> Self:
        """A network for tests, after `CLIPVisionConfig.miniature()`."""
        return cls(
            tokens=17,
            context_tokens=7,
            features=48,
            block_out_channels=(16, 24, 32),
            norm_num_groups=8,
        )

    def blocks(self) -> list[Block]:
        """The network from input to output."""
        width = self.block_out_channels[-1]
        blocks = [Block("conv", self.tokens, width), Block("resize", width, width)]
        blocks += [Block("res", width, width), Block("attn", width, width), Block("res", width, width)]
        for level in reversed(range(len(self.block_out_channels))):
            for _ in range(self.layers_per_block):
                blocks.append(Block("res", width, self.block_out_channels[level]))
                width = self.block_out_channels[level]
                if self.attention[level]:
                    blocks.append(Block("attn", width, width))
            if level > 0:
                blocks.append(Block("resize", width, width))
        return [*blocks, Block("norm", width, width), Block("conv", width, self.context_tokens)]


class Conv1d(nnx.Conv):
    """1-D convolution over (B, L, C), kernel WIO, that keeps the length."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, **init: Unpack[Init]):
        pad = kernel_size // 2
        super().__init__(in_channels, out_channels, (kernel_size,), padding=((pad, pad),), **init)

    def __call__(self, x: Float[Array, "B L C"]) -> Float[Array, "B L D"]:
        """Convolves, and adds the bias."""
        return super().__call__(x)


class Resize1d(nnx.Module):
    """Nearest resize of the length to `size`, then a convolution."""

    def __init__(self, channels: int, size: int, **init: Unpack[Init]):
        self.size = size
        self.conv = Conv1d(channels, channels, **init)

    def __call__(self, x: Float[Array, "B L C"]) -> Float[Array, "B M C"]:
        """Resizes, then convolves."""
        return self.conv(nearest_resize(x, (self.size,), (1,)))


class ResBlock1d(nnx.Module):
    """Two convolutions, each after norm and SiLU, and a shortcut that is 1x1 where the channels change."""

    def __init__(self, config: VisualEncoderConfig, in_channels: int, out_channels: int, **init: Unpack[Init]):
        groups, epsilon = config.norm_num_groups, config.norm_eps
        self.norm1 = GroupNorm(in_channels, groups, epsilon=epsilon, **init)
        self.conv1 = Conv1d(in_channels, out_channels, **init)
        self.norm2 = GroupNorm(out_channels, groups, epsilon=epsilon, **init)
        self.conv2 = Conv1d(out_channels, out_channels, **init)
        self.conv_out = Conv1d(in_channels, out_channels, 1, **init) if in_channels != out_channels else None

    def __call__(self, x: Float[Array, "B L C"]) -> Float[Array, "B L D"]:
        """Adds the two convolutions to the shortcut."""
        hidden = self.conv1(jax.nn.silu(self.norm1(x)))
        hidden = self.conv2(jax.nn.silu(self.norm2(hidden)))
        return hidden + (x if self.conv_out is None else self.conv_out(x))


class AttnBlock1d(nnx.Module):
    """Single-head self-attention along the length, with a residual."""

    def __init__(self, config: VisualEncoderConfig, channels: int, **init: Unpack[Init]):
        self.norm = GroupNorm(channels, config.norm_num_groups, epsilon=config.norm_eps, **init)
        self.q = Conv1d(channels, channels, 1, **init)
        self.k = Conv1d(channels, channels, 1, **init)
        self.v = Conv1d(channels, channels, 1, **init)
        self.proj_out = Conv1d(channels, channels, 1, **init)

    def __call__(self, x: Float[Array, "B L C"]) -> Float[Array, "B L C"]:
        """Adds what each place finds along the length."""
        hidden = self.norm(x)
        query, key, value = (project(hidden)[:, :, None] for project in (self.q, self.k, self.v))  # (B, L, 1, C)
        return x + self.proj_out(dot_product_attention(query, key, value)[:, :, 0])


class VisualEncoder(nnx.Module):
    """Turns CLIP's tokens into the UNet's context.

    Args:
        config: sizes; the defaults are the released model's.
        rngs: random streams for the initial weights.
        dtype: compute dtype (norms and softmax stay in float32).
        param_dtype: storage dtype.
        remat: recompute each block's activations in the backward pass.
    """

    def __init__(
        self,
        config: VisualEncoderConfig,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        remat: bool = False,
    ):
        init: Init = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        check_config(config, VisualEncoderConfig)
        self.config, self.dtype, self.remat = config, dtype, remat
        third = config.features // 3
        sizes = itertools.cycle((third, 2 * third, config.features))
        modules = []
        for kind, in_channels, out_channels in config.blocks():
            match kind:
                case "conv":
                    modules.append(Conv1d(in_channels, out_channels, **init))
                case "resize":
                    modules.append(Resize1d(out_channels, next(sizes), **init))
                case "res":
                    modules.append(ResBlock1d(config, in_channels, out_channels, **init))
                case "attn":
                    modules.append(AttnBlock1d(config, out_channels, **init))
                case "norm":
                    groups, epsilon = config.norm_num_groups, config.norm_eps
                    modules.append(GroupNorm(out_channels, groups, epsilon=epsilon, **init))
        self.blocks = nnx.List(modules)

    def __call__(self, tokens: Float[Array, "B T D"]) -> Float[Array, "B S D"]:
        """Encodes CLIP's tokens.

        Args:
            tokens: CLIP's tokens after its last LayerNorm, (B, 197, 768) for the released model.

        Returns:
            The context for UNet and Spatial Encoder, (B, 77, 768). No activation stands between the last norm and
            convolution, as in the release.

        Raises:
            InterLCMError: the tokens' shape doesn't fit this network.
        """
        check_shape("tokens", tokens, "B", self.config.tokens, self.config.features)
        x = tokens.astype(self.dtype).swapaxes(1, 2)  # (B, features, tokens)
        for block in self.blocks:
            x = call(block, x, remat=self.remat)
        return x.swapaxes(1, 2)
