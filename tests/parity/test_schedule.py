"""Schedule and sampler against diffusers' LCMScheduler."""

import diffusers
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from interlcm_jax.diffusion.sampler import sample
from interlcm_jax.diffusion.schedule import ScheduleConfig, Steps, restoration_steps
from tests.parity.bridge import CLOSED_FORM, nhwc

CONFIG = ScheduleConfig()
SHAPE = (2, 4, 6, 5)


def scheduler(num_steps: int = 4) -> diffusers.LCMScheduler:
    theirs = diffusers.LCMScheduler.from_config(CONFIG.to_json())
    theirs.set_timesteps(num_steps)
    return theirs


def normal(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def assert_close(actual, expected: torch.Tensor) -> None:
    """At unit scale: a first step divides by a signal as small as 0.1."""
    scale = max(1.0, expected.abs().max().item())
    np.testing.assert_allclose(actual / scale, nhwc(expected) / scale, rtol=0, atol=CLOSED_FORM)


def test_alphas_cumprod():
    np.testing.assert_allclose(CONFIG.alphas_cumprod(), scheduler().alphas_cumprod.numpy(), rtol=0, atol=CLOSED_FORM)


@pytest.mark.parametrize("num_steps", [*range(1, 9), 50])
def test_timesteps(num_steps):
    assert CONFIG.timesteps(num_steps).tolist() == scheduler(num_steps).timesteps.tolist()


@pytest.mark.parametrize("calls", range(1, 9))
def test_each_call(calls):
    theirs, steps = scheduler(calls + 1), restoration_steps(CONFIG, calls)
    clean, noise, eps = normal(0), normal(1), normal(2)
    for index, timestep in enumerate(theirs.timesteps[1:]):
        noisy = theirs.add_noise(clean, noise, timestep[None])
        assert_close(steps.signal[index] * nhwc(clean) + steps.sigma[index] * nhwc(noise), noisy)
        expected = theirs.step(eps, timestep, noisy).denoised
        step = Steps(*(x[index : index + 1] for x in steps))
        assert_close(sample(lambda *_: nhwc(eps), nhwc(clean), nhwc(noise)[None], step), expected)


@pytest.mark.parametrize("calls", [1, 3])
def test_the_whole_loop(calls):
    """Their `step` adds the next noise itself: the same draws, in the same order."""
    theirs, clean = scheduler(calls + 1), normal(0)
    generator = torch.Generator().manual_seed(7)
    noise = [torch.randn(SHAPE, generator=generator) for _ in range(calls)]
    generator = torch.Generator().manual_seed(7)
    noisy = theirs.add_noise(clean, torch.randn(SHAPE, generator=generator), theirs.timesteps[1:2])
    theirs.set_begin_index(1)  # the first step has run no network
    for timestep in theirs.timesteps[1:]:
        noisy, denoised = theirs.step(torch.sin(noisy), timestep, noisy, generator=generator, return_dict=False)
    draws = jnp.stack([nhwc(draw) for draw in noise])
    assert_close(
        sample(lambda noisy, _: jnp.sin(noisy), nhwc(clean), draws, restoration_steps(CONFIG, calls)), denoised
    )
