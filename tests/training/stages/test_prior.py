"""The prior's loss, draws and scale."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.training.stages import Prior, prior

MODEL = ModelConfig.miniature()


def test_the_loss_is_the_noises_error_and_dropped_conditions_are_zeros(images, networks_of, key):
    """At two timesteps of each image."""
    stage, networks = Prior(draws=2), networks_of(Prior)
    images = images | stage.draw(key(), MODEL, images["hq"].shape)
    images["kept"] = jnp.array([[True, True], [False, True]])
    loss, _ = jax.jit(functools.partial(stage.loss, networks, networks, MODEL))(images)

    @jax.jit
    def expected(hq, timestep, noise, kept):
        latents = networks.vae.encode(hq)[0] * MODEL.vae.scaling_factor
        alphas = jnp.asarray(MODEL.schedule.alphas_cumprod())[timestep].reshape(-1, 1, 1, 1)
        noisy = jnp.sqrt(alphas) * latents + jnp.sqrt(1 - alphas) * noise
        context = prior.tokens(networks, MODEL, hq) * kept.astype(jnp.float32).reshape(-1, 1, 1)
        return ((networks.unet(noisy, timestep.astype(jnp.float32), context) - noise) ** 2).mean()

    draws = [expected(images["hq"], *(images[name][:, i] for name in ("timestep", "noise", "kept"))) for i in (0, 1)]
    assert abs(draws[0] - draws[1]) > 1e-3 * draws[0]
    assert float(loss) == pytest.approx(float(sum(draws)) / 2, rel=1e-4)


def test_draws_are_of_seed_and_step_and_cover_their_ranges(key):
    shape = (400, 64, 64, 3)
    first = Prior().draw(key(0), MODEL, shape)
    again, later, other = (Prior().draw(each, MODEL, shape) for each in (key(0), key(1), key(0, seed=1)))
    assert all((first[name] == again[name]).all() for name in first)
    assert (first["noise"] != later["noise"]).any()
    assert (first["noise"] != other["noise"]).any()
    assert 0 <= first["timestep"].min() < 30
    assert 970 < first["timestep"].max() < 1000
    assert 0.85 < first["kept"].mean() < 0.95


def test_the_latents_are_measured_on_the_first_faces(batch, networks_of):
    networks = networks_of(Prior)
    found = Prior().measured(networks, MODEL, iter(batch["hq"])).vae.scaling_factor
    latents = networks.vae.encode(jnp.asarray(batch["hq"], jnp.float32) / 127.5 - 1)[0]
    assert found == pytest.approx(1 / float(np.std(latents)), rel=1e-3)
    assert Prior(scale_latents=False).measured(networks, MODEL, iter(batch["hq"])) is MODEL
