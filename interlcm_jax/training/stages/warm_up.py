"""Warms new encoders up on latents alone, before the restoration losses: no decoder is run, so a step costs half.

Each call's clean prediction is to be the high-quality face's latents. As in a ControlNet's own training (Zhang et al.
2023) a call is trained by itself: no gradient passes from one to the next; but each starts from what the call before
gave, as in a restoration.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from interlcm_jax.diffusion.sampler import refine
from interlcm_jax.diffusion.schedule import Steps
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.restoration import Networks, encode, steered_denoiser
from interlcm_jax.training.config import TrainConfig
from interlcm_jax.training.stage import NOISE, Images, Metrics, Stage, stream
from interlcm_jax.training.stages.restoration import show
from interlcm_jax.training.state import TRAINED


def draw(config: TrainConfig, model: ModelConfig, step: Array, shape: tuple[int, ...]) -> dict[str, Array]:
    """Each image's noise at each call, (B, calls, h, w, L)."""
    noise = (shape[0], model.num_network_calls, *model.latent_shape(shape))
    return {"noise": jax.random.normal(stream(config, NOISE, step), noise, jnp.float32)}


def loss(
    config: TrainConfig, model: ModelConfig, networks: Networks, average: Networks, images: Images
) -> tuple[Array, Metrics]:
    """Mean absolute difference of the latents, over all calls."""
    noise, wanted = images["noise"].swapaxes(0, 1), encode(networks, model, images["hq"])
    denoiser, steps, inputs = steered_denoiser(networks, model, images["lq"], len(noise))

    def call(clean: Array, step: tuple[Array, Steps, Array]) -> tuple[Array, Array]:
        clean = refine(denoiser, jax.lax.stop_gradient(clean), *step)
        return clean, jnp.abs(clean - wanted).mean()

    start = encode(networks, model, images["lq"])
    _, distances = jax.lax.scan(call, start, (noise, steps, inputs), unroll=config.unroll)
    metrics = {"loss/start": jnp.abs(start - wanted).mean(), "loss/last_call": distances[-1]}
    return distances.mean(), metrics


STAGE = Stage(TRAINED, draw, show, loss=loss)
