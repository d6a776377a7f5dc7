"""Warms new encoders up on latents alone, before the restoration losses: no decoder is run, so a step costs half.

Each call's clean prediction is to be the high-quality face's latents. As in a ControlNet's own training (Zhang et al.
2023) a call is trained by itself: no gradient passes from one to the next; but each starts from what the call before
gave, as in a restoration.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from interlcm_jax.diffusion.sampler import refine
from interlcm_jax.diffusion.schedule import Steps
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.restoration import Networks, encode, steered_denoiser
from interlcm_jax.training.stage import ENCODERS, Images, Key, Metrics, Stage
from interlcm_jax.training.stages.restoration import draw_call_noise, show_restored


@dataclasses.dataclass(frozen=True)
class WarmUp(Stage):
    """The encoders' warm-up.

    Attributes:
        unroll: as in `Restoration`.
    """

    trained: ClassVar[tuple[str, ...]] = ENCODERS

    unroll: bool = False

    def draw(self, key: Key, model: ModelConfig, shape: tuple[int, ...]) -> dict[str, Array]:
        """Each image's noise at each call, (B, calls, h, w, L)."""
        return {"noise": draw_call_noise(key, model, shape)}

    def loss(
        self, networks: Networks, average: Networks, model: ModelConfig, images: Images
    ) -> tuple[Float[Array, ""], Metrics]:
        """Mean absolute difference of the latents, over all calls."""
        noise, wanted = images["noise"].swapaxes(0, 1), encode(networks, model, images["hq"])
        denoiser, steps, inputs = steered_denoiser(networks, model, images["lq"], len(noise))

        def call(clean: Array, step: tuple[Array, Steps, Array]) -> tuple[Array, Array]:
            clean = refine(denoiser, jax.lax.stop_gradient(clean), *step)
            return clean, jnp.abs(clean - wanted).mean()

        start = encode(networks, model, images["lq"])
        _, distances = jax.lax.scan(call, start, (noise, steps, inputs), unroll=self.unroll)
        metrics = {"loss/start": jnp.abs(start - wanted).mean(), "loss/last_call": distances[-1]}
        return distances.mean(), metrics

    def show(self, networks: Networks, model: ModelConfig, lq: Array, hq: Array) -> Float[Array, "B H W 3"]:
        """The restored faces, as a user has them."""
        return show_restored(networks, model, lq)
