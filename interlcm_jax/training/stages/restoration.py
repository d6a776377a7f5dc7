"""InterLCM's own training: Visual and Spatial Encoder, through all network calls to the pixels (paper, section 3.4)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from interlcm_jax.imaging.color_fix import color_fix
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.models.discriminator import PatchDiscriminator
from interlcm_jax.models.lpips import Params as LPIPSParams
from interlcm_jax.restoration import Networks, draw_noise, restore
from interlcm_jax.training.config import REMAT, TrainConfig
from interlcm_jax.training.gradients import image_gradients, whole
from interlcm_jax.training.stage import NOISE, Gradients, Images, Stage, stream
from interlcm_jax.training.state import TRAINED, TrainState, Weights

SEED = 0  # of the noise of what is shown


def draw(config: TrainConfig, model: ModelConfig, step: Array, shape: tuple[int, ...]) -> dict[str, Array]:
    """The noise of each image at each call, (B, calls, h, w, L)."""
    shape = (shape[0], model.num_network_calls, *model.latent_shape(shape))
    return {"noise": jax.random.normal(stream(config, NOISE, step), shape, jnp.float32)}


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
    """L1, LPIPS and hinge GAN of the restored images; only the encoders' gradients are computed."""

    def generate(params: Weights) -> tuple[Array, Array]:
        noise = images["noise"].swapaxes(0, 1)
        remat_calls = REMAT[config.remat][1]
        networks_now = whole(networks, frozen, params)
        return restore(networks_now, model, images["lq"], noise, remat_calls=remat_calls), jnp.zeros(())

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
    """The restored faces, as a user has them."""
    noise = draw_noise(jnp.uint32(SEED), model.num_network_calls, model.latent_shape(lq.shape))
    return color_fix(restore(networks, model, lq, noise), lq, model.color_fix)


STAGE = Stage(TRAINED, draw, gradients, show)
