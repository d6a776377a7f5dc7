"""The autoencoder, from nothing: what the diffusion model's latents are (Rombach et al. 2022, section 3.1)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.restoration import Networks
from interlcm_jax.training import losses
from interlcm_jax.training.config import TrainConfig
from interlcm_jax.training.stage import POSTERIOR, Generated, Images, Stage, stream


def draw(config: TrainConfig, model: ModelConfig, step: Array, shape: tuple[int, ...]) -> dict[str, Array]:
    """The noise of the posterior's samples, (B, h, w, L)."""
    return {"posterior": jax.random.normal(stream(config, POSTERIOR, step), (shape[0], *model.latent_shape(shape)))}


def generate(config: TrainConfig, model: ModelConfig, networks: Networks, images: Images) -> Generated:
    """The high-quality faces' round trip through a sample of the posterior, and its small divergence."""
    mean, logvar = (moment.astype(jnp.float32) for moment in networks.vae.encode(images["hq"]))
    if config.autoencoder.decoder_only:
        mean, logvar = jax.lax.stop_gradient((mean, logvar))
    latents = mean + jnp.exp(0.5 * logvar) * images["posterior"]
    divergence = losses.divergence(mean, logvar, 1 / model.vae.scaling_factor)
    pictures = networks.vae.decode(latents).astype(jnp.float32)
    return Generated(pictures, images["hq"], config.autoencoder.divergence * divergence)


def show(networks: Networks, model: ModelConfig, lq: Array, hq: Array) -> Array:
    """The high-quality faces' round trip: no restoration can be better."""
    return networks.vae.decode(networks.vae.encode(hq)[0]).astype(jnp.float32)


STAGE = Stage(("vae",), draw, show, generate)
