"""InterLCM's own training: Visual and Spatial Encoder, through all network calls to the pixels (paper, section 3.4)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from interlcm_jax.imaging.color_fix import color_fix
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.restoration import Networks, draw_noise, restore
from interlcm_jax.training.config import REMAT, TrainConfig
from interlcm_jax.training.stage import NOISE, Images, Stage, stream
from interlcm_jax.training.state import TRAINED

SEED = 0  # of the noise of what is shown


def draw(config: TrainConfig, model: ModelConfig, step: Array, shape: tuple[int, ...]) -> dict[str, Array]:
    """The noise of each image at each call, (B, calls, h, w, L)."""
    shape = (shape[0], model.num_network_calls, *model.latent_shape(shape))
    return {"noise": jax.random.normal(stream(config, NOISE, step), shape, jnp.float32)}


def generate(config: TrainConfig, model: ModelConfig, networks: Networks, images: Images) -> tuple[Array, Array]:
    """The restored images, through all calls."""
    noise, remat_calls = images["noise"].swapaxes(0, 1), REMAT[config.remat][1]
    return restore(networks, model, images["lq"], noise, remat_calls=remat_calls), jnp.zeros(())


def show(networks: Networks, model: ModelConfig, lq: Array, hq: Array) -> Array:
    """The restored faces, as a user has them."""
    noise = draw_noise(jnp.uint32(SEED), model.num_network_calls, model.latent_shape(lq.shape))
    return color_fix(restore(networks, model, lq, noise), lq, model.color_fix)


STAGE = Stage(TRAINED, draw, show, generate)
