"""The token tower, from nothing: a small ViT of CLIP's class that learns faces by completing them.

Half of an image's patches are hidden, and half of the images are low-quality ones; from the tokens, a linear head gives
all patches of the high-quality face (masked image modeling: Xie et al. 2022, SimMIM, arXiv 2111.09886).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from interlcm_jax.imaging.clip_preprocess import clip_preprocess
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.models.clip_vision import CLIPVision, CLIPVisionConfig
from interlcm_jax.models.layers import Linear
from interlcm_jax.models.weights import abstract
from interlcm_jax.restoration import Networks
from interlcm_jax.training.config import TrainConfig
from interlcm_jax.training.stage import MASK, Images, Metrics, Stage, stream


class PatchHead(nnx.Module):
    """From each patch's token to its pixels.

    Args:
        config: the tower's sizes.
        rngs: source of the random initial weights.
        dtype: dtype of the computation.
        param_dtype: dtype the weights are kept in.
    """

    def __init__(self, config: CLIPVisionConfig, *, rngs: nnx.Rngs, dtype=jnp.float32, param_dtype=jnp.float32):
        self.config = config
        init = {"rngs": rngs, "dtype": dtype, "param_dtype": param_dtype}
        self.linear = Linear(config.hidden_size, 3 * config.patch_size**2, **init)

    def __call__(self, tokens: Float[Array, "B T D"]) -> Float[Array, "B N P"]:
        """All tokens of the tower, the class token first, to the pixels of each patch, normalized as CLIP does."""
        return self.linear(tokens[:, 1:])


def draw(config: TrainConfig, model: ModelConfig, step: Array, shape: tuple[int, ...]) -> dict[str, Array]:
    """Which patches are seen, (B, N), and which images are low-quality ones, (B,)."""
    patches, low = jax.random.split(stream(config, MASK, step))
    count = model.clip_vision.num_tokens - 1
    return {
        "seen": jax.random.bernoulli(patches, 1 - config.token_tower.masked, (shape[0], count)),
        "low": jax.random.bernoulli(low, 0.5, (shape[0],)),
    }


def loss(
    config: TrainConfig, model: ModelConfig, networks: Networks, average: Networks, images: Images
) -> tuple[Array, Metrics]:
    """Mean squared error of all patches, hidden or not."""
    size = model.clip_vision.image_size
    lq, hq = (clip_preprocess(images[name], size) for name in ("lq", "hq"))
    chosen = jnp.where(images["low"][:, None, None, None], lq, hq)
    found = completed(networks.clip_vision, networks.head, chosen, images["seen"])
    error = ((found.astype(jnp.float32) - patches(hq, model.clip_vision.patch_size)) ** 2).mean(-1)
    hidden = (~images["seen"]).astype(jnp.float32)
    return error.mean(), {"loss/hidden": (error * hidden).sum() / jnp.maximum(hidden.sum(), 1)}


def completed(
    tower: CLIPVision, head: PatchHead, images: Float[Array, "B S S 3"], seen: Array
) -> Float[Array, "B N P"]:
    """The patches that tower and head find in preprocessed images of which only some patches are seen."""
    side = tower.config.image_size // tower.config.patch_size
    mask = seen.reshape(len(seen), side, side)
    for axis in (1, 2):
        mask = jnp.repeat(mask, tower.config.patch_size, axis)
    return head(tower(jnp.where(mask[..., None], images, 0)))


def patches(images: Float[Array, "B S S 3"], size: int) -> Float[Array, "B N P"]:
    """An image's patches, row by row, each flattened."""
    batch, height, width, channels = images.shape
    grid = images.reshape(batch, height // size, size, width // size, size, channels).swapaxes(2, 3)
    return grid.reshape(batch, -1, size * size * channels)


def show(networks: Networks, model: ModelConfig, lq: Array, hq: Array) -> Array:
    """The faces that head and tower find in the low-quality ones, every other patch of which is hidden."""
    config = model.clip_vision
    side, size = config.image_size // config.patch_size, config.patch_size
    checks = jnp.indices((side, side)).sum(0).reshape(1, -1) % 2 == 0
    seen = jnp.broadcast_to(checks, (len(lq), side * side))
    found = completed(networks.clip_vision, networks.head, clip_preprocess(lq, config.image_size), seen)
    grid = found.astype(jnp.float32).reshape(len(lq), side, side, size, size, 3).swapaxes(2, 3)
    whole_images = grid.reshape(len(lq), side * size, side * size, 3)
    # CLIP's normalization undone: affine, and so known from what it makes of black and white.
    black, white = (clip_preprocess(jnp.full((1, *hq.shape[1:]), v), config.image_size)[0, 0, 0] for v in (-1.0, 1.0))
    pixels = (whole_images - black[None, None, None]) / (white - black)[None, None, None] * 2 - 1
    return jax.image.resize(pixels, hq.shape, "linear")


def helpers(config: TrainConfig, model: ModelConfig) -> dict[str, nnx.Module]:
    """The head, which is trained too and dropped afterwards."""
    return {"head": abstract(lambda rngs: PatchHead(model.clip_vision, rngs=rngs, dtype=jnp.dtype(config.dtype)))}


STAGE = Stage(("clip_vision", "head"), draw, show, loss=loss, helpers=helpers)
