"""The spatial transformer of Stable Diffusion 1.5: self-attention, cross-attention to the context, GEGLU.

Its layers take and give what any dense layer or convolution does, so another may stand in their place (LoRA, a
quantized layer). Inside they multiply in the shapes that suit attention: XLA drops a layer's last reshape or join
together with the caller's, which undoes it.
"""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from interlcm_jax.models.kernels.attention import dot_product_attention
from interlcm_jax.models.layers import Conv, GroupNorm, Init, LayerNorm, Linear

# Keys and values of the context, one pair for each transformer block: (B, T, N, K) each.
KeyValue = tuple[Array, Array]


class ToHeads(Linear):
    """A bias-free dense layer before a split by heads: it splits the kernel, since a TPU would copy the product."""

    def __init__(self, in_features: int, out_features: int, num_heads: int, **init: Unpack[Init]):
        self.num_heads = num_heads
        super().__init__(in_features, out_features, use_bias=False, **init)

    def __call__(self, x: Float[Array, "B T C"]) -> Float[Array, "B T D"]:
        """Multiplies by the kernel."""
        kernel = self.kernel.get_value().astype(self.dtype)
        kernel = kernel.reshape(len(kernel), self.num_heads, -1)
        return jnp.einsum("btd,dnk->btnk", x.astype(self.dtype), kernel).reshape(*x.shape[:2], -1)


class FromHeads(Linear):
    """A dense layer after heads are joined: it multiplies them as they are."""

    def __init__(self, in_features: int, out_features: int, num_heads: int, **init: Unpack[Init]):
        self.num_heads = num_heads
        super().__init__(in_features, out_features, **init)

    def __call__(self, x: Float[Array, "B T C"]) -> Float[Array, "B T D"]:
        """Multiplies by the kernel, and adds the bias."""
        kernel, bias = _weights(self, x)
        heads = x.reshape(*x.shape[:2], self.num_heads, -1)
        return jnp.einsum("btnk,nkd->btd", heads, kernel.reshape(*heads.shape[2:], -1)) + bias


class ToHalves(Linear):
    """A dense layer before a split in two: it makes the halves, which saves writing both to read them again.

    Of few tokens it makes them together: to halve the kernel, a copy, would take more than it saves.
    """

    def __call__(self, x: Float[Array, "B T C"]) -> Float[Array, "B T D"]:
        """Multiplies by the kernel, and adds the bias."""
        kernel, bias = _weights(self, x)
        if x.shape[0] * x.shape[1] <= kernel.shape[1]:
            return x @ kernel + bias
        halves = zip(*(jnp.split(each, 2, axis=-1) for each in (kernel, bias)), strict=True)
        return jnp.concatenate([x @ k + b for k, b in halves], axis=-1)


class TokenConv(Conv):
    """A 1x1 convolution between a map and tokens, by a product of pixels that stand in a row.

    As a convolution of the map it would make a TPU keep all tokens between two of them as a map, in a layout that
    attention and LayerNorm are slow in.
    """

    def __init__(self, in_channels: int, out_channels: int, **init: Unpack[Init]):
        super().__init__(in_channels, out_channels, 1, **init)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W D"]:
        """Multiplies each pixel by the kernel, and adds the bias."""
        tokens = x.reshape(x.shape[0], -1, x.shape[-1])
        kernel, bias = _weights(self, tokens)
        return (tokens @ kernel[0, 0] + bias).reshape(*x.shape[:3], -1)


class Attention(nnx.Module):
    """Multi-head attention with bias-free projections; attends to `context_dim`-wide tokens, or to itself."""

    def __init__(self, dim: int, num_heads: int, context_dim: int | None = None, **init: Unpack[Init]):
        self.num_heads = num_heads
        self.to_q = ToHeads(dim, dim, num_heads, **init)
        self.to_k = ToHeads(context_dim or dim, dim, num_heads, **init)
        self.to_v = ToHeads(context_dim or dim, dim, num_heads, **init)
        self.to_out = nnx.List([FromHeads(dim, dim, num_heads, **init)])

    def key_value(self, context: Float[Array, "B T D"]) -> KeyValue:
        """Keys and values of `context`, (B, T, N, K) each; they don't change while the context doesn't."""
        return self._heads(self.to_k(context)), self._heads(self.to_v(context))

    def __call__(self, x: Float[Array, "B T D"], key_value: KeyValue | None = None) -> Float[Array, "B T D"]:
        """Attends from `x` to the given keys and values, or to itself."""
        key, value = self.key_value(x) if key_value is None else key_value
        attended = dot_product_attention(self._heads(self.to_q(x)), key, value)
        return self.to_out[0](attended.reshape(*attended.shape[:2], -1))

    def _heads(self, tokens: Float[Array, "B T D"]) -> Float[Array, "B T N K"]:
        return tokens.reshape(*tokens.shape[:2], self.num_heads, -1)


class FeedForward(nnx.Module):
    """GEGLU feed-forward of four times the width, with the exact (erf) GELU."""

    def __init__(self, dim: int, **init: Unpack[Init]):
        self.proj = ToHalves(dim, 8 * dim, **init)
        self.out = Linear(4 * dim, dim, **init)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Applies out(a · gelu(b)) with a, b the halves of proj(x)."""
        hidden, gate = jnp.split(self.proj(x), 2, axis=-1)
        return self.out(hidden * jax.nn.gelu(gate, approximate=False))


class BasicTransformerBlock(nnx.Module):
    """Pre-norm self-attention, cross-attention and feed-forward, each with a residual."""

    def __init__(self, dim: int, num_heads: int, context_dim: int, **init: Unpack[Init]):
        self.norm1 = LayerNorm(dim, epsilon=1e-5, **init)
        self.attn1 = Attention(dim, num_heads, **init)
        self.norm2 = LayerNorm(dim, epsilon=1e-5, **init)
        self.attn2 = Attention(dim, num_heads, context_dim, **init)
        self.norm3 = LayerNorm(dim, epsilon=1e-5, **init)
        self.ff = FeedForward(dim, **init)

    def __call__(self, x: Float[Array, "B T D"], key_value: KeyValue) -> Float[Array, "B T D"]:
        """`key_value` are the context's, from `attn2.key_value`."""
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), key_value)
        return x + self.ff(self.norm3(x))


class Transformer2DModel(nnx.Module):
    """Transformer blocks over the pixels of a feature map, between 1x1 convolutions, with a residual around all."""

    def __init__(
        self, channels: int, num_heads: int, context_dim: int, num_groups: int, num_layers: int, **init: Unpack[Init]
    ):
        # This norm's epsilon is 1e-6, while the resnets beside it use the config's 1e-5.
        self.norm = GroupNorm(channels, num_groups, epsilon=1e-6, **init)
        self.proj_in = TokenConv(channels, channels, **init)
        self.transformer_blocks = nnx.List(
            [BasicTransformerBlock(channels, num_heads, context_dim, **init) for _ in range(num_layers)]
        )
        self.proj_out = TokenConv(channels, channels, **init)

    def key_values(self, context: Float[Array, "B T D"]) -> list[KeyValue]:
        """The context's keys and values for each transformer block."""
        return [block.attn2.key_value(context) for block in self.transformer_blocks]

    def __call__(self, x: Float[Array, "B H W C"], key_values: list[KeyValue]) -> Float[Array, "B H W C"]:
        """`key_values` are the context's, from `key_values`."""
        tokens = self.proj_in(self.norm(x)).reshape(x.shape[0], -1, x.shape[-1])
        for block, key_value in zip(self.transformer_blocks, key_values, strict=True):
            tokens = block(tokens, key_value)
        return x + self.proj_out(tokens.reshape(x.shape))


def _weights(layer: Conv | Linear, x: Float[Array, "B T ..."]) -> tuple[Array, Float[Array, "1 1 D"]]:
    """A layer's kernel and its bias, for tokens, in the dtype of `x`."""
    kernel, bias = (weight.get_value().astype(x.dtype) for weight in (layer.kernel, layer.bias))
    return kernel, bias[None, None]
