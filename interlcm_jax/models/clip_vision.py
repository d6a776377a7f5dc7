"""The vision tower of CLIP (Radford et al. 2021, arXiv 2103.00020), as Hugging Face publishes it."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from interlcm_jax.models.config import NetworkConfig, check_config, indivisible
from interlcm_jax.models.kernels.attention import dot_product_attention
from interlcm_jax.models.layers import Conv, Init, LayerNorm, Linear, call, check_shape


@dataclasses.dataclass(frozen=True)
class CLIPVisionConfig(NetworkConfig):
    """Sizes of a CLIP vision tower.

    The defaults are those of transformers (a ViT-B/32), since a published file may list only what differs from
    them. The tower InterLCM uses is `vit_b_16()`.
    """

    FIXED: ClassVar[Mapping[str, Any]] = {
        "model_type": "clip_vision_model",
        "hidden_act": "quick_gelu",
        "num_channels": 3,
    }

    image_size: int = 224
    patch_size: int = 32
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    layer_norm_eps: float = 1e-5

    def contradictions(self) -> list[str]:
        """A width that the heads don't divide; a patch larger than the image."""
        problems = indivisible("hidden_size", [self.hidden_size], "num_attention_heads", self.num_attention_heads)
        if self.patch_size > self.image_size:
            problems.append(f"patch_size is {self.patch_size}, but the image_size {self.image_size}")
        return problems

    @classmethod
    def vit_b_16(cls) -> Self:
        """ViT-B/16, hub `openai/clip-vit-base-patch16`: 85.8 M parameters without the unused projection."""
        return cls(patch_size=16)

    @classmethod
    def miniature(cls) -> Self:
        """A tower for tests: 17 tokens of width 48."""
        return cls(
            image_size=32,
            patch_size=8,
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
        )

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Self:
        """Reads the `config.json` of a vision tower alone, or of a whole CLIP, where the tower's is nested.

        Raises:
            InterLCMError: a setting asks for something this network doesn't implement; all are named.
        """
        if config.get("model_type") == "clip" or "vision_config" in config:
            # Early files spell the same settings a second time, and transformers lets those win.
            config = {**(config.get("vision_config") or {}), **(config.get("vision_config_dict") or {})}
        return super().from_json(config)

    @property
    def num_tokens(self) -> int:
        """The class token and one token a patch."""
        return 1 + (self.image_size // self.patch_size) ** 2


class CLIPVisionEmbeddings(nnx.Module):
    """Patches as tokens, after a class token, plus learned positions."""

    def __init__(self, config: CLIPVisionConfig, **init: Unpack[Init]):
        self.dtype = init["dtype"]
        width, rngs, param_dtype = config.hidden_size, init["rngs"], init["param_dtype"]
        normal = nnx.initializers.normal(0.02)
        self.class_embedding = nnx.Param(normal(rngs.params(), (width,), param_dtype))
        self.patch_embedding = Conv(
            3, width, config.patch_size, stride=config.patch_size, padding=0, use_bias=False, **init
        )
        self.position_embedding = nnx.Param(normal(rngs.params(), (config.num_tokens, width), param_dtype))

    def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B T D"]:
        """Cuts normalized pixels into tokens, row by row."""
        patches = self.patch_embedding(pixels.astype(self.dtype))
        batch, _, _, width = patches.shape
        first = jnp.broadcast_to(self.class_embedding[...].astype(self.dtype), (batch, 1, width))
        tokens = jnp.concatenate([first, patches.reshape(batch, -1, width)], axis=1)
        return tokens + self.position_embedding[...].astype(self.dtype)[None]


class CLIPAttention(nnx.Module):
    """Multi-head self-attention with biases everywhere."""

    def __init__(self, config: CLIPVisionConfig, **init: Unpack[Init]):
        width = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.q_proj = Linear(width, width, **init)
        self.k_proj = Linear(width, width, **init)
        self.v_proj = Linear(width, width, **init)
        self.out_proj = Linear(width, width, **init)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Lets every token attend to all."""
        heads = (*x.shape[:2], self.num_heads, -1)
        query, key, value = (project(x).reshape(heads) for project in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(dot_product_attention(query, key, value).reshape(x.shape))


def quick_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """OpenAI's approximation of GELU, x · sigmoid(1.702 x); it is off the exact one by up to 0.02."""
    return x * jax.nn.sigmoid(1.702 * x)


class CLIPMLP(nnx.Module):
    """Two dense layers with quick-GELU between them."""

    def __init__(self, config: CLIPVisionConfig, **init: Unpack[Init]):
        self.fc1 = Linear(config.hidden_size, config.intermediate_size, **init)
        self.fc2 = Linear(config.intermediate_size, config.hidden_size, **init)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Maps each token by itself."""
        return self.fc2(quick_gelu(self.fc1(x)))


class CLIPEncoderLayer(nnx.Module):
    """A pre-norm transformer layer."""

    def __init__(self, config: CLIPVisionConfig, **init: Unpack[Init]):
        self.layer_norm1 = LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps, **init)
        self.self_attn = CLIPAttention(config, **init)
        self.layer_norm2 = LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps, **init)
        self.mlp = CLIPMLP(config, **init)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Attention, then the dense layers, each on the normalized input and added to it."""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class CLIPEncoder(nnx.Module):
    """The stack of layers."""

    def __init__(self, config: CLIPVisionConfig, *, remat: bool, **init: Unpack[Init]):
        self.remat = remat
        self.layers = nnx.List([CLIPEncoderLayer(config, **init) for _ in range(config.num_hidden_layers)])

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Runs the layers one after the other."""
        for layer in self.layers:
            x = call(layer, x, remat=self.remat)
        return x


class CLIPVision(nnx.Module):
    """CLIP's vision tower as InterLCM uses it: the last LayerNorm on every token, no projection.

    Args:
        config: sizes; `CLIPVisionConfig.vit_b_16()` is the released model's.
        rngs: random streams for the initial weights.
        dtype: compute dtype (norms and softmax stay in float32).
        param_dtype: storage dtype.
        remat: recompute each layer's activations in the backward pass.
    """

    def __init__(
        self,
        config: CLIPVisionConfig,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        remat: bool = False,
    ):
        init: Init = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        check_config(config, CLIPVisionConfig)
        self.config = config
        self.embeddings = CLIPVisionEmbeddings(config, **init)
        # The published weights spell it so.
        self.pre_layrnorm = LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps, **init)
        self.encoder = CLIPEncoder(config, remat=remat, **init)
        self.post_layernorm = LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps, **init)

    def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B T D"]:
        """Encodes images into tokens.

        Args:
            pixels: `image_size` square, normalized with CLIP's mean and deviation (see `clip_preprocess`).

        Returns:
            The class token, then the patches row by row: (B, 197, 768) for ViT-B/16.

        Raises:
            InterLCMError: the pixels' shape doesn't fit this network.
        """
        check_shape("pixels", pixels, "B", self.config.image_size, self.config.image_size, 3)
        x = self.pre_layrnorm(self.embeddings(pixels))
        return self.post_layernorm(self.encoder(x))
