"""The autoencoder, from nothing: what the diffusion model's latents are (Rombach et al. 2022, section 3.1)."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.restoration import Networks
from interlcm_jax.training import losses
from interlcm_jax.training.losses import LossConfig
from interlcm_jax.training.stage import POSTERIOR, Generated, Images, Key, Stage


@dataclasses.dataclass(frozen=True)
class Autoencoder(Stage):
    """The autoencoder.

    Attributes:
        losses: of the round trip's pictures.
        divergence: weight of the latents' divergence from a normal distribution.
        decoder_only: the encoder stays as it is, and so do the latents and all that was trained on them.
    """

    trained: ClassVar[tuple[str, ...]] = ("vae",)

    losses: LossConfig = dataclasses.field(default_factory=LossConfig)
    divergence: float = 1e-4
    decoder_only: bool = False

    def __post_init__(self):
        self.require(divergence=(self.divergence >= 0, "at least 0"))

    def draw(self, key: Key, model: ModelConfig, shape: tuple[int, ...]) -> dict[str, Array]:
        """The noise of the posterior's samples, (B, h, w, L)."""
        return {"posterior": jax.random.normal(key(POSTERIOR), (shape[0], *model.latent_shape(shape)))}

    def generate(self, networks: Networks, model: ModelConfig, images: Images) -> Generated:
        """The high-quality faces' round trip through a sample of the posterior, and its small divergence."""
        mean, logvar = (moment.astype(jnp.float32) for moment in networks.vae.encode(images["hq"]))
        if self.decoder_only:
            mean, logvar = jax.lax.stop_gradient((mean, logvar))
        latents = mean + jnp.exp(0.5 * logvar) * images["posterior"]
        divergence = losses.divergence(mean, logvar, 1 / model.vae.scaling_factor)
        pictures = networks.vae.decode(latents).astype(jnp.float32)
        return Generated(pictures, images["hq"], self.divergence * divergence)

    def show(self, networks: Networks, model: ModelConfig, lq: Array, hq: Array) -> Float[Array, "B H W 3"]:
        """The high-quality faces' round trip: no restoration can be better."""
        return networks.vae.decode(networks.vae.encode(hq)[0]).astype(jnp.float32)
