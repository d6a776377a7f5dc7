"""The image encoder's pre-training, from nothing: a small ViT of CLIP's class learns faces by completing them.

Half of an image's patches are hidden, and half of the images are low-quality ones; from the tokens, a linear head gives
all patches of the high-quality face (masked image modeling: Xie et al. 2022, SimMIM, arXiv 2111.09886).
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from interlcm_jax.imaging.clip_preprocess import clip_preprocess
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.models.clip_vision import CLIPVision, CLIPVisionConfig
from interlcm_jax.models.layers import Linear
from interlcm_jax.models.weights import abstract
from interlcm_jax.restoration import Networks
from interlcm_jax.training.stage import MASK, Images, Key, Metrics, Stage


class PatchHead(nnx.Module):
    """From each patch's token to its pixels.

    Args:
        config: the image encoder's sizes.
        rngs: source of the random initial weights.
        dtype: dtype of the computation.
        param_dtype: dtype the weights are kept in.
    """

    def __init__(self, config: CLIPVisionConfig, *, rngs: nnx.Rngs, dtype=jnp.float32, param_dtype=jnp.float32):
        self.config = config
        init = {"rngs": rngs, "dtype": dtype, "param_dtype": param_dtype}
        self.linear = Linear(config.hidden_size, 3 * config.patch_size**2, **init)

    def __call__(self, tokens: Float[Array, "B T D"]) -> Float[Array, "B N P"]:
        """All tokens of the encoder, the class token first, to the pixels of each patch, normalized as CLIP does."""
        return self.linear(tokens[:, 1:])


@dataclasses.dataclass(frozen=True)
class ImageEncoder(Stage):
    """The image encoder, `clip_vision` of the model.

    Attributes:
        masked: how many of an image's patches are hidden.
    """

    trained: ClassVar[tuple[str, ...]] = ("clip_vision", "head")

    masked: float = 0.5

    def __post_init__(self):
        self.require(masked=(0 <= self.masked < 1, "from 0 to below 1"))

    def draw(self, key: Key, model: ModelConfig, shape: tuple[int, ...]) -> dict[str, Array]:
        """Which patches are seen, (B, N), and which images are low-quality ones, (B,)."""
        patches, low = jax.random.split(key(MASK))
        count = model.clip_vision.num_tokens - 1
        return {
            "seen": jax.random.bernoulli(patches, 1 - self.masked, (shape[0], count)),
            "low": jax.random.bernoulli(low, 0.5, (shape[0],)),
        }

    def loss(
        self, networks: Networks, average: Networks, model: ModelConfig, images: Images
    ) -> tuple[Float[Array, ""], Metrics]:
        """Mean squared error of all patches, hidden or not."""
        size = model.clip_vision.image_size
        lq, hq = (clip_preprocess(images[name], size) for name in ("lq", "hq"))
        chosen = jnp.where(images["low"][:, None, None, None], lq, hq)
        found = completed(networks.clip_vision, networks.head, chosen, images["seen"])
        error = ((found.astype(jnp.float32) - patches(hq, model.clip_vision.patch_size)) ** 2).mean(-1)
        hidden = (~images["seen"]).astype(jnp.float32)
        return error.mean(), {"loss/hidden": (error * hidden).sum() / jnp.maximum(hidden.sum(), 1)}

    def show(self, networks: Networks, model: ModelConfig, lq: Array, hq: Array) -> Float[Array, "B H W 3"]:
        """The faces that head and encoder find in the low-quality ones, every other patch of which is hidden."""
        config = model.clip_vision
        side, size = config.image_size // config.patch_size, config.patch_size
        checks = jnp.indices((side, side)).sum(0).reshape(1, -1) % 2 == 0
        seen = jnp.broadcast_to(checks, (len(lq), side * side))
        found = completed(networks.clip_vision, networks.head, clip_preprocess(lq, config.image_size), seen)
        grid = found.astype(jnp.float32).reshape(len(lq), side, side, size, size, 3).swapaxes(2, 3)
        whole_images = grid.reshape(len(lq), side * size, side * size, 3)
        # CLIP's normalization undone: affine, and so known from what it makes of black and white.
        black, white = (
            clip_preprocess(jnp.full((1, *hq.shape[1:]), v), config.image_size)[0, 0, 0] for v in (-1.0, 1.0)
        )
        pixels = (whole_images - black[None, None, None]) / (white - black)[None, None, None] * 2 - 1
        return jax.image.resize(pixels, hq.shape, "linear")

    def helpers(self, model: ModelConfig, dtype: DTypeLike) -> dict[str, nnx.Module]:
        """The head, which is trained too and dropped afterwards."""
        return {"head": abstract(lambda rngs: PatchHead(model.clip_vision, rngs=rngs, dtype=dtype))}


def completed(
    encoder: CLIPVision, head: PatchHead, images: Float[Array, "B S S 3"], seen: Array
) -> Float[Array, "B N P"]:
    """The patches that encoder and head find in preprocessed images of which only some patches are seen."""
    side = encoder.config.image_size // encoder.config.patch_size
    mask = seen.reshape(len(seen), side, side)
    for axis in (1, 2):
        mask = jnp.repeat(mask, encoder.config.patch_size, axis)
    return head(encoder(jnp.where(mask[..., None], images, 0)))


def patches(images: Float[Array, "B S S 3"], size: int) -> Float[Array, "B N P"]:
    """An image's patches, row by row, each flattened."""
    batch, height, width, channels = images.shape
    grid = images.reshape(batch, height // size, size, width // size, size, channels).swapaxes(2, 3)
    return grid.reshape(batch, -1, size * size * channels)
