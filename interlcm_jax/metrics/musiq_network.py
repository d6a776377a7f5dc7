"""MUSIQ's network: a transformer over patches of one image at several scales that gives its quality.

Ke et al., "MUSIQ: Multi-scale Image Quality Transformer", ICCV 2021, arXiv 2108.05997, with the arithmetic of pyiqa's
port, whose numbers papers on face restoration report. Google's own code differs in the approximated GELU (up to 5e-4 an
element) and in weights standardized by the biased deviation, which the norm behind each convolution cancels.
"""

import dataclasses
from typing import Self, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from interlcm_jax.models.config import NetworkConfig
from interlcm_jax.models.layers import GroupNorm, Init, LayerNorm, Linear

ROOT_EPSILON, BLOCK_EPSILON, ENCODER_EPSILON = 1e-6, 1e-4, 1e-6
_STANDARDIZING_EPSILON = 1e-5
# The root halves the resolution twice, and its one bottleneck block widens four times.
_ROOT_STRIDE, _EXPANSION = 4, 4


@dataclasses.dataclass(frozen=True)
class MUSIQConfig(NetworkConfig):
    """Sizes of MUSIQ; the defaults are those of the published three-scale models.

    Attributes:
        patch_size: height and width of a patch, pixels.
        longer_sides: the image's longer side at each scale but the native one, pixels, ascending.
        grid_size: rows and columns of learned positions that every scale's patches share.
        root_channels: width of the first convolution.
        norm_num_groups: groups of the root's norms.
        hidden_size: width of the transformer.
        num_hidden_layers: its layers.
        num_attention_heads: heads of each.
        intermediate_size: width between the two dense layers of each.
    """

    patch_size: int = 32
    longer_sides: tuple[int, ...] = (224, 384)
    grid_size: int = 10
    root_channels: int = 64
    norm_num_groups: int = 32
    hidden_size: int = 384
    num_hidden_layers: int = 14
    num_attention_heads: int = 6
    intermediate_size: int = 1152

    @classmethod
    def miniature(cls) -> Self:
        """Patches of 8 pixels and two layers of width 24, for tests."""
        return cls(
            patch_size=8,
            longer_sides=(20, 28),
            grid_size=4,
            root_channels=8,
            norm_num_groups=4,
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=40,
        )


class StandardizedConv(nnx.Module):
    """Convolution without bias whose filters are taken to zero mean and unit deviation (Qiao et al., 1903.10520).

    Padding is TensorFlow's "SAME": where it is odd, the larger half comes last.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, **init: Unpack[Init]):
        shape = (kernel_size, kernel_size, in_channels, out_channels)
        self.kernel = nnx.Param(nnx.initializers.lecun_normal()(init["rngs"].params(), shape, init["param_dtype"]))
        self.stride, self.dtype = stride, init["dtype"]

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """The filters are standardized in float32."""
        kernel = self.kernel[...].astype(jnp.float32)
        kernel = kernel - kernel.mean((0, 1, 2), keepdims=True)
        kernel = kernel / (kernel.std((0, 1, 2), ddof=1, keepdims=True) + _STANDARDIZING_EPSILON)
        strides, names = (self.stride, self.stride), ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x.astype(self.dtype), kernel.astype(self.dtype), strides, "SAME", dimension_numbers=names
        )


class Bottleneck(nnx.Module):
    """A residual block of three convolutions that widens four times."""

    def __init__(self, config: MUSIQConfig, **init: Unpack[Init]):
        width, groups = config.root_channels, config.norm_num_groups
        self.conv1, self.gn1 = StandardizedConv(width, width, 1, **init), _norm(width, groups, **init)
        self.conv2, self.gn2 = StandardizedConv(width, width, 3, **init), _norm(width, groups, **init)
        widened = _EXPANSION * width
        self.conv3, self.gn3 = StandardizedConv(width, widened, 1, **init), _norm(widened, groups, **init)
        self.conv_proj, self.gn_proj = StandardizedConv(width, widened, 1, **init), _norm(widened, groups, **init)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W D"]:
        """A rectifier follows each norm, the last one after the sum."""
        shortcut = self.gn_proj(self.conv_proj(x))
        x = nnx.relu(self.gn1(self.conv1(x)))
        x = nnx.relu(self.gn2(self.conv2(x)))
        return nnx.relu(self.gn3(self.conv3(x)) + shortcut)


class Attention(nnx.Module):
    """Multi-head self-attention that leaves out the masked tokens."""

    def __init__(self, config: MUSIQConfig, **init: Unpack[Init]):
        width = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.query = Linear(width, width, **init)
        self.key = Linear(width, width, **init)
        self.value = Linear(width, width, **init)
        self.out = Linear(width, width, **init)

    def __call__(self, x: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B T D"]:
        """Lets every token attend to those of `mask`; what comes out for the others means nothing."""
        heads = (*x.shape[:2], self.num_heads, -1)
        query, key, value = (project(x).reshape(heads) for project in (self.query, self.key, self.value))
        scores = jnp.einsum("bqnk,btnk->bnqt", query, key, preferred_element_type=jnp.float32)
        scores = jnp.where(mask[:, None, None], scores * query.shape[-1] ** -0.5, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores).astype(value.dtype)
        return self.out(jnp.einsum("bnqt,btnk->bqnk", weights, value).reshape(x.shape))


class MLP(nnx.Module):
    """Two dense layers with the exact GELU between them."""

    def __init__(self, config: MUSIQConfig, **init: Unpack[Init]):
        self.fc1 = Linear(config.hidden_size, config.intermediate_size, **init)
        self.fc2 = Linear(config.intermediate_size, config.hidden_size, **init)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Maps each token by itself."""
        return self.fc2(jax.nn.gelu(self.fc1(x), approximate=False))


class EncoderLayer(nnx.Module):
    """A pre-norm transformer layer."""

    def __init__(self, config: MUSIQConfig, **init: Unpack[Init]):
        self.norm1 = LayerNorm(config.hidden_size, epsilon=ENCODER_EPSILON, **init)
        self.attention = Attention(config, **init)
        self.norm2 = LayerNorm(config.hidden_size, epsilon=ENCODER_EPSILON, **init)
        self.mlp = MLP(config, **init)

    def __call__(self, x: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B T D"]:
        """Attention, then the dense layers, each on the normalized input and added to it."""
        x = x + self.attention(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


class MUSIQ(nnx.Module):
    """Tells the quality of images from their patches.

    Args:
        config: the sizes.
        rngs: source of the random initial weights.
        dtype: dtype of the computation; norms and softmax are in float32 all the same.
        param_dtype: dtype the weights are kept in.
    """

    def __init__(
        self,
        config: MUSIQConfig,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ):
        init = Init(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.config, self.dtype = config, dtype
        root, width, scales = config.root_channels, config.hidden_size, len(config.longer_sides) + 1
        self.conv_root = StandardizedConv(3, root, 7, stride=2, **init)
        self.gn_root = GroupNorm(root, config.norm_num_groups, epsilon=ROOT_EPSILON, **init)
        self.block1 = Bottleneck(config, **init)
        features = _EXPANSION * root * (config.patch_size // _ROOT_STRIDE) ** 2
        self.embedding = Linear(features, width, **init)
        normal = nnx.initializers.normal(0.02)
        self.position_embedding = nnx.Param(normal(rngs.params(), (1, config.grid_size**2, width), param_dtype))
        self.scale_embedding = nnx.Param(normal(rngs.params(), (scales, width), param_dtype))
        self.class_token = nnx.Param(jnp.zeros((1, 1, width), param_dtype))
        self.layers = nnx.List([EncoderLayer(config, **init) for _ in range(config.num_hidden_layers)])
        self.encoder_norm = LayerNorm(width, epsilon=ENCODER_EPSILON, **init)
        self.head = Linear(width, 1, **init)

    def __call__(
        self,
        pixels: Float[Array, "B L P P 3"],
        positions: Int[Array, "B L"],
        scales: Int[Array, "B L"],
        mask: Bool[Array, "B L"],
    ) -> Float[Array, "B"]:
        """Mean opinion scores, about 0 to 100 with the KonIQ weights and not clipped.

        Args:
            pixels: patches of RGB images in [-1, 1], in any order.
            positions: where on the grid each patch lies, below `grid_size` squared.
            scales: of which scale each is; the native one is the last.
            mask: which are there; what the others hold changes nothing.
        """
        x = self.embedding(self._features(pixels))
        x = x + self._looked_up(self.position_embedding[...][0], positions)
        x = x + self._looked_up(self.scale_embedding[...], scales)
        first = jnp.broadcast_to(self.class_token[...].astype(self.dtype), (len(x), 1, x.shape[-1]))
        x, mask = jnp.concatenate([first, x], axis=1), jnp.pad(mask, ((0, 0), (1, 0)), constant_values=True)
        for layer in self.layers:
            x = layer(x, mask)
        return self.head(self.encoder_norm(x[:, 0]))[:, 0].astype(jnp.float32)

    def _features(self, pixels: Float[Array, "B L P P 3"]) -> Float[Array, "B L F"]:
        """Each patch by itself through the root, its pixels row by row."""
        x = pixels.reshape(-1, *pixels.shape[2:])
        x = nnx.relu(self.gn_root(self.conv_root(x)))
        x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding="SAME")
        return self.block1(x).reshape(*pixels.shape[:2], -1)

    def _looked_up(self, table: Float[Array, "N D"], index: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        return jnp.take(table, index, axis=0).astype(self.dtype)


def _norm(channels: int, groups: int, **init: Unpack[Init]) -> GroupNorm:
    return GroupNorm(channels, groups, epsilon=BLOCK_EPSILON, **init)
