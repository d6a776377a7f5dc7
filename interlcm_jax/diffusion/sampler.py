"""The few-step sampler: re-noise, predict the noise, solve for the clean latents; over any denoiser."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float

from interlcm_jax.diffusion.schedule import Steps

# (noisy latents, this call's inputs) -> predicted noise eps
Denoiser = Callable[[Array, Any], Array]


def sample(
    denoiser: Denoiser,
    latents: Float[Array, "B H W C"],
    noise: Float[Array, "calls #B H W C"],
    steps: Steps,
    inputs: Any = None,
    *,
    unroll: bool = False,
) -> Float[Array, "B H W C"]:
    """Refines clean latents by one network call a step.

    Each call adds its noise to the last clean prediction, predicts it, and applies the consistency function (Luo et
    al. 2023, equation 9). Differentiable, and compiled once for all calls unless unrolled.

    Args:
        denoiser: predicts eps from noisy latents and its entry of `inputs`.
        latents: the first clean prediction, scaled; float32.
        noise: one draw for each call; a batch of one serves every image.
        steps: coefficients, one for each call.
        inputs: whatever else the denoiser takes, a pytree with a leading axis of calls.
        unroll: compile each call on its own instead of one loop body.

    Returns:
        The last clean prediction.
    """

    def call(clean: Array, step: tuple[Array, Steps, Any]) -> tuple[Array, None]:
        return refine(denoiser, clean, *step), None

    clean, _ = jax.lax.scan(call, latents, (noise, steps, inputs), unroll=unroll)
    return clean


def refine(
    denoiser: Denoiser, clean: Float[Array, "B H W C"], noise: Float[Array, "#B H W C"], step: Steps, inputs: Any
) -> Float[Array, "B H W C"]:
    """One call: the next clean prediction from the last, with one step's noise, coefficients and inputs."""
    noisy = step.signal * clean + step.sigma * noise
    eps = denoiser(noisy, inputs)
    predicted = (noisy - step.sigma * eps) / step.signal
    return step.c_out * predicted + step.c_skip * noisy
