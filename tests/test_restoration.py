"""The restoration path as a function: how the VAE's share of it is cut."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interlcm_jax import restoration
from interlcm_jax.restoration import in_slices, restore
from tests.miniature import miniature_model


@pytest.mark.parametrize(
    ("size", "seen"), [(None, {5}), (1, {1}), (2, {2, 1}), (3, {3, 2}), (4, {4, 1}), (5, {5}), (8, {5})]
)
def test_slices_have_the_size_asked_for_and_keep_their_order(size, seen):
    sizes = set()

    def function(x: jax.Array) -> jax.Array:
        sizes.add(x.shape[0])
        return x.sum(-1) ** 2

    x = jnp.arange(30.0).reshape(5, 2, 3)
    np.testing.assert_array_equal(in_slices(function, size, x), x.sum(-1) ** 2)
    assert sizes == seen


@pytest.mark.parametrize(("skipped", "timesteps"), [(0, [999, 679, 339]), (1, [759, 499, 259]), (2, [599, 399, 199])])
def test_starts_where_the_model_was_trained_to(skipped, timesteps, monkeypatch):
    model, seen = miniature_model(), []
    config = dataclasses.replace(model.config, skipped_steps=skipped)

    def sample(denoiser, latents, noise, steps, inputs, *, unroll):
        seen.extend(steps.timesteps.tolist())
        return latents

    monkeypatch.setattr(restoration, "sample", sample)
    jax.eval_shape(lambda n: restore(n, config, jnp.zeros((1, 64, 64, 3)), jnp.zeros((3, 1, 8, 8, 4))), model.networks)
    assert seen == timesteps
