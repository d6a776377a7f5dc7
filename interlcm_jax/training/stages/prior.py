"""The diffusion prior, from nothing: a UNet that denoises latents, given the face's tokens (Ho et al. 2020)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from interlcm_jax.diffusion.ddim import ddim_steps, denoise
from interlcm_jax.imaging.clip_preprocess import clip_preprocess
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.restoration import Networks, draw_noise, encode
from interlcm_jax.training.config import TrainConfig
from interlcm_jax.training.stage import DIFFUSION, DROPOUT, Images, Metrics, Stage, stream

SHOWN_STEPS = 20  # of the faces shown
SEED = 0  # of their noise


def draw(config: TrainConfig, model: ModelConfig, step: Array, shape: tuple[int, ...]) -> dict[str, Array]:
    """Of each image D times: a timestep (B, D), noise (B, D, h, w, L), whether it keeps its condition (B, D)."""
    time, noise = jax.random.split(stream(config, DIFFUSION, step))
    drawn = (shape[0], config.prior.draws)
    return {
        "timestep": jax.random.randint(time, drawn, 0, model.schedule.num_train_timesteps),
        "noise": jax.random.normal(noise, (*drawn, *model.latent_shape(shape)), jnp.float32),
        "kept": jax.random.bernoulli(stream(config, DROPOUT, step), 1 - config.prior.condition_dropout, drawn),
    }


def loss(
    config: TrainConfig, model: ModelConfig, networks: Networks, average: Networks, images: Images
) -> tuple[Array, Metrics]:
    """Mean squared error of the predicted noise."""
    latents, context = encoded(networks, model, images["hq"], config.prior.draws)
    timestep, noise, kept = (merged(images[name]) for name in ("timestep", "noise", "kept"))
    context = jnp.where(kept[:, None, None], context, 0)
    signal, sigma = noise_levels(model, timestep)
    eps = networks.unet(signal * latents + sigma * noise, timestep.astype(jnp.float32), context)
    return ((eps - noise) ** 2).mean(), {}


def encoded(
    networks: Networks, model: ModelConfig, hq: Float[Array, "B H W 3"], draws: int
) -> tuple[Float[Array, "N h w L"], Float[Array, "N T D"]]:
    """Scaled latents and tokens of faces, each `draws` times, from the frozen autoencoder and token tower."""
    return jnp.repeat(encode(networks, model, hq), draws, 0), jnp.repeat(tokens(networks, model, hq), draws, 0)


def merged(drawn: Array) -> Array:
    """What was drawn several times of each image, (B, D, ...), as one batch (B D, ...)."""
    return drawn.reshape(-1, *drawn.shape[2:])


def tokens(networks: Networks, model: ModelConfig, images: Float[Array, "B H W 3"]) -> Float[Array, "B T D"]:
    """The token tower's tokens of images, which are the prior's condition; zeros stand for none."""
    return networks.clip_vision(clip_preprocess(images, model.clip_vision.image_size)).astype(jnp.float32)


def noise_levels(model: ModelConfig, timesteps: Array) -> tuple[Float[Array, "B 1 1 1"], Float[Array, "B 1 1 1"]]:
    """Factors of the clean latents and of the noise at each image's timestep."""
    alphas = jnp.asarray(model.schedule.alphas_cumprod())[timesteps][:, None, None, None]
    return jnp.sqrt(alphas), jnp.sqrt(1 - alphas)


def show(networks: Networks, model: ModelConfig, lq: Array, hq: Array) -> Array:
    """New faces, from noise and the high-quality faces' tokens, by DDIM (Song et al. 2021)."""
    noise = draw_noise(jnp.uint32(SEED), 1, model.latent_shape(hq.shape))[0]
    noise = jnp.broadcast_to(noise, (len(hq), *noise.shape[1:]))
    key_values = networks.unet.key_values(tokens(networks, model, hq))

    def eps(noisy: Array, timestep: Array) -> Array:
        return networks.unet.denoise(noisy, networks.unet.embed_time(timestep[None]), key_values)

    clean = denoise(eps, noise, ddim_steps(model.schedule, SHOWN_STEPS))
    return networks.vae.decode(clean / model.vae.scaling_factor).astype(jnp.float32)


STAGE = Stage(("unet",), draw, show, loss=loss)
