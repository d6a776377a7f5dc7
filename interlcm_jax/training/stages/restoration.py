"""InterLCM's own training: Visual and Spatial Encoder, through all network calls to the pixels (paper, section 3.4)."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from interlcm_jax.imaging.color_fix import color_fix
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.restoration import Networks, draw_noise, restore
from interlcm_jax.training.losses import LossConfig
from interlcm_jax.training.stage import ENCODERS, NOISE, Generated, Images, Key, Stage

SEED = 0  # of the noise of what is shown


@dataclasses.dataclass(frozen=True)
class Restoration(Stage):
    """InterLCM's training.

    Attributes:
        losses: of the restored faces.
        unroll: compile each network call by itself, not one loop: longer, for CPUs' sake, whose loops are slow.
        remat_calls: keep only the latents between calls for the backward pass, which then computes each call again.
    """

    trained: ClassVar[tuple[str, ...]] = ENCODERS

    losses: LossConfig = dataclasses.field(default_factory=LossConfig)
    unroll: bool = False
    remat_calls: bool = False

    def draw(self, key: Key, model: ModelConfig, shape: tuple[int, ...]) -> dict[str, Array]:
        """Each image's noise at each call, (B, calls, h, w, L)."""
        return {"noise": draw_call_noise(key, model, shape)}

    def generate(self, networks: Networks, model: ModelConfig, images: Images) -> Generated:
        """The restored images, through all calls."""
        options = {"unroll": self.unroll, "remat_calls": self.remat_calls}
        restored = restore(networks, model, images["lq"], images["noise"].swapaxes(0, 1), **options)
        return Generated(restored, images["hq"], jnp.zeros(()))

    def show(self, networks: Networks, model: ModelConfig, lq: Array, hq: Array) -> Float[Array, "B H W 3"]:
        """The restored faces, as a user has them."""
        return show_restored(networks, model, lq)


def draw_call_noise(key: Key, model: ModelConfig, shape: tuple[int, ...]) -> Float[Array, "B calls h w L"]:
    """The noise of each image at each call."""
    noise = (shape[0], model.num_network_calls, *model.latent_shape(shape))
    return jax.random.normal(key(NOISE), noise, jnp.float32)


def show_restored(networks: Networks, model: ModelConfig, lq: Float[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
    """Restored faces with their task's color fix; the noise is always the same."""
    noise = draw_noise(jnp.uint32(SEED), model.num_network_calls, model.latent_shape(lq.shape))
    return color_fix(restore(networks, model, lq, noise), lq, model.color_fix)
