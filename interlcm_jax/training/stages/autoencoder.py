"""The autoencoder, from nothing: what the diffusion model's latents are (Rombach et al. 2022, section 3.1)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from interlcm_jax import losses
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.models.discriminator import PatchDiscriminator
from interlcm_jax.models.lpips import Params as LPIPSParams
from interlcm_jax.restoration import Networks
from interlcm_jax.training.config import TrainConfig
from interlcm_jax.training.gradients import image_gradients, whole
from interlcm_jax.training.stage import POSTERIOR, Gradients, Images, Stage, stream
from interlcm_jax.training.state import TrainState, Weights


def draw(config: TrainConfig, model: ModelConfig, step: Array, shape: tuple[int, ...]) -> dict[str, Array]:
    """The noise of the posterior's samples, (B, h, w, L)."""
    return {"posterior": jax.random.normal(stream(config, POSTERIOR, step), (shape[0], *model.latent_shape(shape)))}


def gradients(
    config: TrainConfig,
    model: ModelConfig,
    networks: Networks,
    discriminator: PatchDiscriminator,
    state: TrainState,
    frozen: Weights,
    perceptual: LPIPSParams | None,
    adversarial: Float[Array, ""],
    statistics: Weights,
    images: Images,
) -> Gradients:
    """L1, perceptual and hinge GAN losses of the high-quality faces' round trip, and a small divergence."""

    def generate(params: Weights) -> tuple[Array, Array]:
        vae = whole(networks, frozen, params).vae
        mean, logvar = (moment.astype(jnp.float32) for moment in vae.encode(images["hq"]))
        latents = mean + jnp.exp(0.5 * logvar) * images["posterior"]
        divergence = losses.divergence(mean, logvar, 1 / model.vae.scaling_factor)
        return vae.decode(latents).astype(jnp.float32), config.autoencoder.divergence * divergence

    onet = getattr(whole(networks, frozen, state.params), "onet", None)
    return image_gradients(
        generate,
        config.losses,
        discriminator,
        onet,
        state,
        perceptual,
        adversarial,
        statistics,
        images["hq"],
    )


def show(networks: Networks, model: ModelConfig, lq: Array, hq: Array) -> Array:
    """The high-quality faces' round trip: no restoration can be better."""
    return networks.vae.decode(networks.vae.encode(hq)[0]).astype(jnp.float32)


STAGE = Stage(("vae",), draw, gradients, show)
