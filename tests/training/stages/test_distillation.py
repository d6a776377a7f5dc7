"""The distillation's loss, draws and teacher."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interlcm_jax.diffusion.schedule import consistency_coefficients
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.training.stages import Distillation, distillation, prior

MODEL = ModelConfig.miniature()


def test_an_image_drawn_several_times_is_several_images(images, networks_of, key):
    """At two places of each image, against one place of each image given twice."""
    stage, networks = Distillation(draws=2), networks_of(Distillation)
    drawn = stage.draw(key(), MODEL, images["hq"].shape)
    drawn["place"] = jnp.array([[0, 20], [3, 1]])  # where something is left of the latents
    twice = {name: jnp.repeat(x, 2, 0) for name, x in images.items()}
    once = {name: x.reshape(-1, 1, *x.shape[2:]) for name, x in drawn.items()}

    def loss(stage, images):
        return jax.jit(lambda images: stage.loss(networks, networks, MODEL, images)[0])(images)

    assert float(loss(stage, images | drawn)) == pytest.approx(float(loss(Distillation(), twice | once)), rel=1e-5)


def test_draws_cover_their_ranges(key):
    drawn = Distillation().draw(key(), MODEL, (400, 64, 64, 3))
    assert (int(drawn["place"].min()), int(drawn["place"].max())) == (0, 49)
    assert 2 <= drawn["guidance"].min() < 3
    assert 13 < drawn["guidance"].max() <= 14


def test_guidance_leads_the_teacher_from_none_to_the_condition(networks_of):
    """With w = -1 the condition has no part; with w = 0 its absence has none."""
    networks = networks_of(Distillation)
    noisy, context = jnp.ones((1, 8, 8, 4)), jnp.ones((1, 17, 48))
    now, to = prior.noise_levels(MODEL, jnp.array([999])), prior.noise_levels(MODEL, jnp.array([979]))
    led = functools.partial(distillation.led_along, networks.teacher, noisy, jnp.array([999]))
    none, all_of_it = led(context, jnp.array([-1.0]), now, to), led(context, jnp.array([0.0]), now, to)
    np.testing.assert_allclose(none, led(0 * context, jnp.array([5.0]), now, to), atol=1e-4)
    assert jnp.abs(none - all_of_it).max() > 1e-3
    beyond = led(context, jnp.array([1.0]), now, to)
    np.testing.assert_allclose(beyond - all_of_it, all_of_it - none, atol=1e-4)


def test_the_consistency_function_is_the_identity_at_0():
    c_skip, c_out = consistency_coefficients(MODEL.schedule, np.array([0, 999]))
    assert (c_skip[0], c_out[0]) == (1, 0)
    assert c_skip[1] < 1e-6
    assert c_out[1] == pytest.approx(1)
