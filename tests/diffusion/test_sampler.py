"""The few-step sampler against the same loop written in NumPy, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interlcm_jax.diffusion.sampler import sample
from interlcm_jax.diffusion.schedule import ScheduleConfig, Steps, restoration_steps

STEPS = restoration_steps(ScheduleConfig(), 3)
SHAPE = (2, 5, 4, 3)
WEIGHTS = np.float32([0.9, -0.2, 0.4])  # one for each call


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


LATENTS, NOISE = (jnp.asarray(x) for x in (normal(*SHAPE), normal(3, *SHAPE, seed=1)))


def denoiser(noisy, weight):
    """Any function of the noisy latents and the call's own input."""
    return jnp.sin(weight * noisy)


def by_numpy(latents: np.ndarray, weights: np.ndarray = WEIGHTS) -> np.ndarray:
    clean = np.asarray(latents, np.float64)
    for noise, weight, *coefficients in zip(np.asarray(NOISE), weights, *STEPS, strict=True):
        _, signal, sigma, c_skip, c_out = coefficients
        noisy = signal * clean + sigma * noise
        predicted = (noisy - sigma * np.sin(weight * noisy)) / signal
        clean = c_out * predicted + c_skip * noisy
    return clean


@pytest.mark.parametrize("unroll", [False, True])
def test_equals_the_plain_loop(unroll):
    actual = sample(denoiser, LATENTS, NOISE, STEPS, WEIGHTS, unroll=unroll)
    expected = by_numpy(LATENTS)
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_the_boundary_condition_keeps_the_noisy_latents_at_timestep_zero():
    steps = Steps(*(np.float32([x]) for x in (0, 0.8, 0.6, 1, 0)))
    clean = sample(denoiser, LATENTS, NOISE[:1], steps, WEIGHTS[:1])
    np.testing.assert_allclose(clean, 0.8 * LATENTS + 0.6 * NOISE[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("unroll", [False, True])
def test_a_perfect_denoiser_returns_the_clean_latents(unroll):
    clean = sample(lambda noisy, noise: noise, LATENTS, NOISE, STEPS, NOISE, unroll=unroll)
    np.testing.assert_allclose(clean, LATENTS, rtol=0, atol=1e-5)


def test_one_noise_serves_the_whole_batch():
    one = sample(denoiser, LATENTS, NOISE[:, :1], STEPS, WEIGHTS)
    same = sample(denoiser, LATENTS, jnp.repeat(NOISE[:, :1], 2, axis=1), STEPS, WEIGHTS)
    np.testing.assert_array_equal(one, same)


@pytest.mark.parametrize("unroll", [False, True])
def test_unrolled_or_not_the_loop_is_compiled_as_asked(unroll):
    lowered = jax.jit(lambda *args: sample(denoiser, *args, unroll=unroll)).lower(LATENTS, NOISE, STEPS, WEIGHTS)
    assert ("stablehlo.while" in lowered.as_text()) != unroll


@pytest.mark.parametrize("unroll", [False, True])
def test_gradients_equal_finite_differences(unroll):
    cotangent, step = normal(*SHAPE, seed=2), 1e-6

    def loss(latents, weights):
        return jnp.sum(sample(denoiser, latents, NOISE, STEPS, weights, unroll=unroll) * cotangent)

    by_latents, by_weights = jax.grad(loss, argnums=(0, 1))(LATENTS, WEIGHTS)
    for index in range(3):
        shift = step * np.eye(3)[index]
        difference = by_numpy(LATENTS, WEIGHTS + shift) - by_numpy(LATENTS, WEIGHTS - shift)
        np.testing.assert_allclose(by_weights[index], (difference * cotangent).sum() / (2 * step), rtol=1e-4)
    # Each element of the result depends on its own latent alone.
    difference = (
        by_numpy(np.asarray(LATENTS) + np.float64(step)) - by_numpy(np.asarray(LATENTS) - np.float64(step))
    ) / (2 * step)
    expected = difference * cotangent
    np.testing.assert_allclose(by_latents, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
