"""The diffusion prior, from nothing: a UNet that denoises latents, given the face's tokens (Ho et al. 2020)."""

import dataclasses
import itertools
from collections.abc import Iterable
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from interlcm_jax.diffusion.ddim import ddim_steps, denoise
from interlcm_jax.imaging.clip_preprocess import clip_preprocess
from interlcm_jax.imaging.pixels import to_float
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.models.vae import AutoencoderKL
from interlcm_jax.restoration import Networks, draw_noise, encode
from interlcm_jax.runtime.compiler_options import jit
from interlcm_jax.training.stage import DIFFUSION, DROPOUT, Images, Key, Metrics, Stage

SCALE_FACES = 64  # by which the latents are scaled
SHOWN_STEPS = 20  # of the faces shown
SEED = 0  # of their noise


@dataclasses.dataclass(frozen=True)
class Prior(Stage):
    """The diffusion prior.

    Attributes:
        condition_dropout: how many images lose their tokens, so that guidance is possible.
        scale_latents: measure the latents' deviation on the first images, and set the VAE's scaling factor by it.
        draws: timesteps and noises that each image is trained at in one step; it is encoded once for all of them.
    """

    trained: ClassVar[tuple[str, ...]] = ("unet",)

    condition_dropout: float = 0.1
    scale_latents: bool = True
    draws: int = 1

    def __post_init__(self):
        self.require(
            condition_dropout=(0 <= self.condition_dropout <= 1, "from 0 to 1"), draws=(self.draws >= 1, "at least 1")
        )

    def draw(self, key: Key, model: ModelConfig, shape: tuple[int, ...]) -> dict[str, Array]:
        """Of each image D times: a timestep (B, D), noise (B, D, h, w, L), whether it keeps its condition (B, D)."""
        time, noise = jax.random.split(key(DIFFUSION))
        drawn = (shape[0], self.draws)
        return {
            "timestep": jax.random.randint(time, drawn, 0, model.schedule.num_train_timesteps),
            "noise": jax.random.normal(noise, (*drawn, *model.latent_shape(shape)), jnp.float32),
            "kept": jax.random.bernoulli(key(DROPOUT), 1 - self.condition_dropout, drawn),
        }

    def loss(
        self, networks: Networks, average: Networks, model: ModelConfig, images: Images
    ) -> tuple[Float[Array, ""], Metrics]:
        """Mean squared error of the predicted noise."""
        latents, context = encoded(networks, model, images["hq"], self.draws)
        timestep, noise, kept = (merged(images[name]) for name in ("timestep", "noise", "kept"))
        context = jnp.where(kept[:, None, None], context, 0)
        signal, sigma = noise_levels(model, timestep)
        eps = networks.unet(signal * latents + sigma * noise, timestep.astype(jnp.float32), context)
        return ((eps - noise) ** 2).mean(), {}

    def show(self, networks: Networks, model: ModelConfig, lq: Array, hq: Array) -> Float[Array, "B H W 3"]:
        """New faces, from noise and the high-quality faces' tokens, by DDIM (Song et al. 2021)."""
        noise = draw_noise(jnp.uint32(SEED), 1, model.latent_shape(hq.shape))[0]
        noise = jnp.broadcast_to(noise, (len(hq), *noise.shape[1:]))
        key_values = networks.unet.key_values(tokens(networks, model, hq))

        def eps(noisy: Array, timestep: Array) -> Array:
            return networks.unet.denoise(noisy, networks.unet.embed_time(timestep[None]), key_values)

        clean = denoise(eps, noise, ddim_steps(model.schedule, SHOWN_STEPS))
        return networks.vae.decode(clean / model.vae.scaling_factor).astype(jnp.float32)

    def measured(
        self, networks: Networks, model: ModelConfig, faces: Iterable[UInt8[np.ndarray, "H W 3"]]
    ) -> ModelConfig:
        """With the scaling factor that brings the first faces' latents to a deviation of 1 (Rombach et al. 2022, D.1).

        Rounded to four digits, so that it is the same on any device.
        """
        if not self.scale_latents:
            return model

        @jit
        def moments(vae: AutoencoderKL, image: Array) -> Array:
            latents = vae.encode(to_float(image))[0].astype(jnp.float32)
            return jnp.stack([latents.mean(), (latents**2).mean()])

        found = [moments(networks.vae, face[None]) for face in itertools.islice(faces, SCALE_FACES)]
        mean, square = np.mean(found, axis=0, dtype=np.float64)
        vae = dataclasses.replace(model.vae, scaling_factor=float(f"{(square - mean**2) ** -0.5:.4g}"))
        return dataclasses.replace(model, vae=vae)


def encoded(
    networks: Networks, model: ModelConfig, hq: Float[Array, "B H W 3"], draws: int
) -> tuple[Float[Array, "N h w L"], Float[Array, "N T D"]]:
    """Scaled latents and tokens of faces, each `draws` times, from the frozen autoencoder and image encoder."""
    return jnp.repeat(encode(networks, model, hq), draws, 0), jnp.repeat(tokens(networks, model, hq), draws, 0)


def merged(drawn: Array) -> Array:
    """What was drawn several times of each image, (B, D, ...), as one batch (B D, ...)."""
    return drawn.reshape(-1, *drawn.shape[2:])


def tokens(networks: Networks, model: ModelConfig, images: Float[Array, "B H W 3"]) -> Float[Array, "B T D"]:
    """The image encoder's tokens of images, which are the prior's condition; zeros stand for none."""
    return networks.clip_vision(clip_preprocess(images, model.clip_vision.image_size)).astype(jnp.float32)


def noise_levels(model: ModelConfig, timesteps: Array) -> tuple[Float[Array, "B 1 1 1"], Float[Array, "B 1 1 1"]]:
    """Factors of the clean latents and of the noise at each image's timestep."""
    alphas = jnp.asarray(model.schedule.alphas_cumprod())[timesteps][:, None, None, None]
    return jnp.sqrt(alphas), jnp.sqrt(1 - alphas)
