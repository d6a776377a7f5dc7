"""Distils the prior into a latent consistency model with guidance embedding (Luo et al. 2023, arXiv 2310.04378).

The student, at a timestep of the grid, is to give what its own moving average gives one step of the grid earlier on the
same path, which the prior's guided DDIM step leads along (algorithm 1; skipped steps, section 4.3).
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from interlcm_jax.diffusion.ddim import ddim_step
from interlcm_jax.diffusion.sampler import sample
from interlcm_jax.diffusion.schedule import consistency_coefficients, lcm_steps
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.models.embeddings import guidance_embedding
from interlcm_jax.models.unet import UNet2DCondition
from interlcm_jax.models.weights import abstract
from interlcm_jax.restoration import Networks, draw_noise
from interlcm_jax.training import losses
from interlcm_jax.training.stage import DIFFUSION, GUIDANCE, Images, Key, Metrics, Stage
from interlcm_jax.training.stages.prior import encoded, merged, noise_levels, tokens

SHOWN_STEPS = 4  # of the faces shown
SEED = 0  # of their noise


@dataclasses.dataclass(frozen=True)
class Distillation(Stage):
    """The distillation of a model folder's UNet, its prior.

    Attributes:
        guidance: least and greatest guidance weight w that the LCM learns.
        huber: width of the pseudo-Huber loss.
        draws: timesteps, noises and guidance weights that each image is trained at in one step, see `Prior`.
    """

    trained: ClassVar[tuple[str, ...]] = ("unet",)
    copied: ClassVar[dict[str, str]] = {"teacher": "unet"}

    guidance: tuple[float, float] = (2.0, 14.0)
    huber: float = 1e-3
    draws: int = 1

    def __post_init__(self):
        low, high = self.guidance
        self.require(
            guidance=(low <= high, "a range, the lower end first"),
            huber=(self.huber > 0, "above 0"),
            draws=(self.draws >= 1, "at least 1"),
        )

    def draw(self, key: Key, model: ModelConfig, shape: tuple[int, ...]) -> dict[str, Array]:
        """Of each image D times: a place on the grid (B, D), noise (B, D, h, w, L), a guidance weight w (B, D)."""
        place, noise = jax.random.split(key(DIFFUSION))
        drawn = (shape[0], self.draws)
        return {
            "place": jax.random.randint(place, drawn, 0, model.schedule.original_inference_steps),
            "noise": jax.random.normal(noise, (*drawn, *model.latent_shape(shape)), jnp.float32),
            "guidance": jax.random.uniform(key(GUIDANCE), drawn, jnp.float32, *self.guidance),
        }

    def loss(
        self, networks: Networks, average: Networks, model: ModelConfig, images: Images
    ) -> tuple[Float[Array, ""], Metrics]:
        """Pseudo-Huber distance of student and target."""
        latents, context = encoded(networks, model, images["hq"], self.draws)
        place, noise, guidance = (merged(images[name]) for name in ("place", "noise", "guidance"))
        every = model.schedule.num_train_timesteps // model.schedule.original_inference_steps
        timestep = (place + 1) * every - 1
        earlier = jnp.maximum(timestep - every, 0)
        signal, sigma = level = noise_levels(model, timestep)
        noisy = signal * latents + sigma * noise
        led = led_along(networks.teacher, noisy, timestep, context, guidance, level, noise_levels(model, earlier))
        target = consistency(average.unet, model, led, earlier, context, guidance)
        found = consistency(networks.unet, model, noisy, timestep, context, guidance)
        return losses.pseudo_huber(found, target, self.huber), {"loss/squared": ((found - target) ** 2).mean()}

    def show(self, networks: Networks, model: ModelConfig, lq: Array, hq: Array) -> Float[Array, "B H W 3"]:
        """New faces, from noise and the high-quality faces' tokens, in four steps."""
        steps = lcm_steps(model.schedule, model.schedule.timesteps(SHOWN_STEPS))
        noise = draw_noise(jnp.uint32(SEED), SHOWN_STEPS, model.latent_shape(hq.shape))
        unet = networks.unet
        key_values = unet.key_values(tokens(networks, model, hq))
        cond = guidance_embedding(jnp.full((SHOWN_STEPS,), model.guidance_scale - 1.0), model.unet.time_cond_proj_dim)
        temb = unet.embed_time(steps.timesteps, cond)[:, None]
        # At the first timestep next to nothing is left of what is re-noised.
        start = jnp.zeros((len(hq), *noise.shape[2:]))
        clean = sample(lambda noisy, temb: unet.denoise(noisy, temb, key_values), start, noise, steps, temb)
        return networks.vae.decode(clean / model.vae.scaling_factor).astype(jnp.float32)

    def helpers(self, model: ModelConfig, dtype: DTypeLike) -> dict[str, nnx.Module]:
        """The teacher: the prior as it was."""
        return {
            "teacher": abstract(lambda rngs: UNet2DCondition(model.unet, rngs=rngs, dtype=dtype, param_dtype=dtype))
        }


def led_along(
    teacher: UNet2DCondition,
    noisy: Float[Array, "B h w L"],
    timestep: Array,
    context: Float[Array, "B T D"],
    guidance: Float[Array, "B"],
    level: tuple[Array, Array],
    to: tuple[Array, Array],
) -> Float[Array, "B h w L"]:
    """One DDIM step of the teacher with guidance (1 + w) eps(context) - w eps(none), both in one pass."""
    time = jnp.tile(timestep.astype(jnp.float32), 2)
    both = teacher(jnp.tile(noisy, (2, 1, 1, 1)), time, jnp.concatenate([context, jnp.zeros_like(context)]))
    conditional, unconditional = jnp.split(both, 2)
    weight = guidance[:, None, None, None]
    return ddim_step(noisy, (1 + weight) * conditional - weight * unconditional, *level, to)


def consistency(
    unet: UNet2DCondition,
    model: ModelConfig,
    noisy: Float[Array, "B h w L"],
    timestep: Array,
    context: Float[Array, "B T D"],
    guidance: Float[Array, "B"],
) -> Float[Array, "B h w L"]:
    """The consistency function: clean latents at once (equation 9), at each image's own timestep."""
    signal, sigma = noise_levels(model, timestep)
    cond = guidance_embedding(guidance, model.unet.time_cond_proj_dim)
    eps = unet(noisy, timestep.astype(jnp.float32), context, cond)
    c_skip, c_out = consistency_coefficients(model.schedule, timestep.astype(jnp.float32))
    predicted = (noisy - sigma * eps) / signal
    return c_out[:, None, None, None] * predicted + c_skip[:, None, None, None] * noisy
