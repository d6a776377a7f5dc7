"""The LCM noise schedule: timesteps, noise levels and the consistency function's coefficients, on the host."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from interlcm_jax.errors import InterLCMError, number_problems

# Standard deviation of the data in the boundary condition; every LCM has it so.
SIGMA_DATA = 0.5


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """Settings of diffusers' `LCMScheduler`, by the names of its `scheduler_config.json`.

    Attributes:
        num_train_timesteps: length of the diffusion the LCM was distilled from.
        beta_start: noise variance of the first step; square roots are linear in between ("scaled_linear").
        beta_end: noise variance of the last step.
        original_inference_steps: steps of the grid the LCM was distilled on.
        timestep_scaling: factor on the timestep in the boundary condition.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    original_inference_steps: int = 50
    timestep_scaling: float = 10.0

    RANGES: ClassVar = {
        "num_train_timesteps": (1, 10**6, int),
        "beta_start": (0, 1, float),
        "beta_end": (0, 1, float),
        "original_inference_steps": (1, 10**6, int),
        "timestep_scaling": (0, 1e6, float),
    }

    def __post_init__(self) -> None:
        problems = [
            problem
            for name, bounds in self.RANGES.items()
            for problem in number_problems(name, getattr(self, name), *bounds)
        ]
        if not problems and self.original_inference_steps > self.num_train_timesteps:
            problems.append(f"original_inference_steps must be at most num_train_timesteps, {self.num_train_timesteps}")
        if problems:
            raise InterLCMError(f"the scheduler's {'; '.join(problems)}")

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Self:
        """Reads a `scheduler_config.json`, already parsed.

        Raises:
            InterLCMError: the file asks for another kind of schedule, or a number is out of its range.
        """
        fixed = {"beta_schedule": "scaled_linear", "prediction_type": "epsilon", "trained_betas": None}
        # What samplers do to a prediction afterwards (clip_sample, thresholding) is no business of this schedule:
        # InterLCM's own path does neither, whatever the LCM's file says.
        fixed["rescale_betas_zero_snr"] = False
        if wrong := [f"{k}={config[k]!r}" for k, v in fixed.items() if config.get(k, v) != v]:
            raise InterLCMError(f"the scheduler's {', '.join(wrong)} isn't implemented; an LCM's has {fixed}")
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: config[name] for name in names if name in config})

    def to_json(self) -> dict[str, Any]:
        """The `scheduler_config.json` that diffusers' `LCMScheduler` reads."""
        fixed = {"_class_name": "LCMScheduler", "beta_schedule": "scaled_linear", "prediction_type": "epsilon"}
        return {**fixed, **dataclasses.asdict(self)}

    def alphas_cumprod(self) -> np.ndarray:
        """Share of signal variance left at each timestep, (num_train_timesteps,) float32, falling from near 1."""
        roots = np.linspace(self.beta_start**0.5, self.beta_end**0.5, self.num_train_timesteps, dtype=np.float32)
        # Multiplied in float64 and rounded once, which is how PyTorch's float32 cumprod comes out.
        return np.cumprod(1 - roots**2, dtype=np.float64).astype(np.float32)

    def timesteps(self, num_steps: int) -> np.ndarray:
        """The LCM's timesteps, falling: every floor(linspace)-th of the reversed grid the LCM was distilled on.

        Raises:
            InterLCMError: there are not that many steps on the grid.
        """
        grid = self.original_inference_steps
        if not 1 <= num_steps <= grid:
            raise InterLCMError(f"num_steps is {num_steps}, but an LCM of {grid} steps takes 1 to {grid}")
        every = self.num_train_timesteps // grid
        reversed_grid = (np.arange(1, grid + 1) * every - 1)[::-1]
        return reversed_grid[np.floor(np.linspace(0, grid, num_steps, endpoint=False)).astype(np.int64)]


class Steps(NamedTuple):
    """Coefficients of each network call, (calls,) float32 each.

    Attributes:
        timesteps: 0 to num_train_timesteps - 1.
        signal: sqrt(alphas_cumprod), the factor of the clean latents.
        sigma: sqrt(1 - alphas_cumprod), the factor of the noise.
        c_skip: factor of the noisy latents in the consistency function.
        c_out: factor of the predicted clean latents.
    """

    timesteps: np.ndarray
    signal: np.ndarray
    sigma: np.ndarray
    c_skip: np.ndarray
    c_out: np.ndarray


def restoration_steps(config: ScheduleConfig, num_network_calls: int, skipped_steps: int = 1) -> Steps:
    """Coefficients of InterLCM's calls: the LCM schedule of one step more, whose first runs no network.

    The first step's clean prediction is the low-quality image itself (InterLCM, section 3.2), so "3-step" means the
    last three of four timesteps: [999, 759, 499, 259] without the 999. Other `skipped_steps` start earlier (0) or
    later.

    Raises:
        InterLCMError: fewer than one call, or more than there are steps on the grid after the skipped ones.
    """
    grid = config.original_inference_steps
    most = grid - skipped_steps
    if not 1 <= num_network_calls <= most:
        raise InterLCMError(f"num_network_calls is {num_network_calls}, but an LCM of {grid} steps takes 1 to {most}")
    return lcm_steps(config, config.timesteps(num_network_calls + skipped_steps)[skipped_steps:])


def lcm_steps(config: ScheduleConfig, timesteps: np.ndarray) -> Steps:
    """Coefficients of an LCM's calls at these timesteps."""
    alphas = config.alphas_cumprod()[timesteps]
    levels = (alphas**0.5, (1 - alphas) ** 0.5)
    return Steps(
        *(np.asarray(x, np.float32) for x in (timesteps, *levels, *consistency_coefficients(config, timesteps)))
    )


def consistency_coefficients(config: ScheduleConfig, timesteps: Any) -> tuple[Any, Any]:
    """c_skip and c_out at timesteps, NumPy's or JAX's: at 0 the consistency function is the identity."""
    scaled, variance = timesteps * config.timestep_scaling, SIGMA_DATA**2
    return variance / (scaled**2 + variance), scaled / (scaled**2 + variance) ** 0.5
