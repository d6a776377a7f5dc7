"""DDIM (Song et al. 2021), the deterministic solver that diffusion models are sampled with and LCMs distilled from."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from interlcm_jax.diffusion.schedule import ScheduleConfig


class DDIMSteps(NamedTuple):
    """Noise levels of each step, (steps,) float32 each; "next" is where the step ends.

    Attributes:
        timesteps: 0 to num_train_timesteps - 1, falling.
        signal: factor of the clean latents.
        sigma: factor of the noise.
        next_signal: the same after the step; 1 after the last.
        next_sigma: the same after the step; 0 after the last.
    """

    timesteps: np.ndarray
    signal: np.ndarray
    sigma: np.ndarray
    next_signal: np.ndarray
    next_sigma: np.ndarray


def ddim_steps(config: ScheduleConfig, num_steps: int) -> DDIMSteps:
    """Levels of a sampling from pure noise to clean latents, over the LCM's own grid of timesteps.

    Raises:
        InterLCMError: there are not that many steps on the grid.
    """
    timesteps = config.timesteps(num_steps)
    alphas = config.alphas_cumprod()[timesteps]
    following = np.append(alphas[1:], np.float32(1))
    levels = (alphas**0.5, (1 - alphas) ** 0.5, following**0.5, (1 - following) ** 0.5)
    return DDIMSteps(*(np.asarray(x, np.float32) for x in (timesteps, *levels)))


def ddim_step(
    noisy: Float[Array, "B H W C"], eps: Float[Array, "B H W C"], signal: Array, sigma: Array, to: tuple[Array, Array]
) -> Float[Array, "B H W C"]:
    """Latents at another noise level, on the path that the predicted noise `eps` says they are on (equation 12, eta 0).

    Args:
        noisy: latents at (signal, sigma).
        eps: the noise predicted in them.
        signal: factor of the clean latents in `noisy`.
        sigma: factor of the noise in it.
        to: both at the other level.
    """
    return to[0] * (noisy - sigma * eps) / signal + to[1] * eps


def denoise(
    eps: Callable[[Array, Array], Array], noise: Float[Array, "B H W C"], steps: DDIMSteps
) -> Float[Array, "B H W C"]:
    """Clean latents from pure noise.

    Args:
        eps: (noisy latents, timestep) -> the noise in them.
        noise: standard normal.
        steps: the noise levels.
    """

    def step(noisy: Array, level: DDIMSteps) -> tuple[Array, None]:
        predicted = eps(noisy, level.timesteps)
        return ddim_step(noisy, predicted, level.signal, level.sigma, (level.next_signal, level.next_sigma)), None

    return jax.lax.scan(step, noise, jax.tree.map(jnp.asarray, steps))[0]
