"""InterLCM's own training: Visual and Spatial Encoder, through all network calls to the pixels (paper, section 3.4)."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from interlcm_jax.imaging.color_fix import color_fix
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.restoration import Networks, draw_noise, restore
from interlcm_jax.training.config import REMAT, TrainConfig
from interlcm_jax.training.stage import CORNER, NOISE, Generated, Images, Stage, stream
from interlcm_jax.training.state import TRAINED

SEED = 0  # of the noise of what is shown


def draw(config: TrainConfig, model: ModelConfig, step: Array, shape: tuple[int, ...]) -> dict[str, Array]:
    """Each image's noise at each call, (B, calls, h, w, L), and the first latent of the part that counts, (B, 2)."""
    height, width, channels = model.latent_shape(shape)
    noise = (shape[0], model.num_network_calls, height, width, channels)
    draws = {"noise": jax.random.normal(stream(config, NOISE, step), noise, jnp.float32)}
    if config.losses.crop:
        free = jnp.asarray([(height, width)]) - config.losses.crop // model.downsampling + 1
        draws["corner"] = jax.random.randint(stream(config, CORNER, step), (shape[0], 2), 0, free)
    return draws


def generate(config: TrainConfig, model: ModelConfig, networks: Networks, images: Images) -> Generated:
    """The restored images, through all calls, or a part of each, which is decoded as if it were all."""
    noise, hq, cut = images["noise"].swapaxes(0, 1), images["hq"], None
    if crop := config.losses.crop:
        hq = _cut_out(hq, images["corner"] * model.downsampling, crop)
        cut = functools.partial(_cut_out, corners=images["corner"], size=crop // model.downsampling)
    options = {"unroll": config.unroll, "remat_calls": REMAT[config.remat][1], "cut": cut}
    return Generated(restore(networks, model, images["lq"], noise, **options), hq, jnp.zeros(()))


def _cut_out(images: Float[Array, "B H W C"], corners: Int[Array, "B 2"], size: int) -> Float[Array, "B size size C"]:
    """A square of each image, from its own row and column on."""

    def cut_out(image: Array, corner: Array) -> Array:
        return jax.lax.dynamic_slice(image, (*corner, 0), (size, size, image.shape[-1]))

    return jax.vmap(cut_out)(images, corners)


def show(networks: Networks, model: ModelConfig, lq: Array, hq: Array) -> Array:
    """The restored faces, as a user has them."""
    noise = draw_noise(jnp.uint32(SEED), model.num_network_calls, model.latent_shape(lq.shape))
    return color_fix(restore(networks, model, lq, noise), lq, model.color_fix)


STAGE = Stage(TRAINED, draw, show, generate)
