"""Losses on a part of each restored face: where it is, and that it is compared with the same part of the original."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interlcm_jax.errors import InterLCMError
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.training.config import LossConfig, MeshConfig, StartConfig, TrainConfig
from interlcm_jax.training.sharding import make_mesh
from interlcm_jax.training.stages import restoration
from interlcm_jax.training.start import load_start

MODEL = ModelConfig.miniature()
CONFIG = TrainConfig(start=StartConfig(random="miniature"), losses=LossConfig(crop=24))
SHAPE = (40, 64, 64, 3)


def test_the_part_is_compared_with_the_same_part_of_the_original(monkeypatch):
    """With a restoration that does nothing, of images of one color a latent."""
    pixels = MODEL.downsampling
    blocks = jax.random.uniform(jax.random.key(0), (SHAPE[0], 8, 8, 3))
    images = blocks.repeat(pixels, 1).repeat(pixels, 2)

    def restore(networks, model, lq, noise, *, cut, **options):
        return cut(lq[:, ::pixels, ::pixels]).repeat(pixels, 1).repeat(pixels, 2)

    monkeypatch.setattr(restoration, "restore", restore)
    draws = restoration.draw(CONFIG, MODEL, jnp.int32(3), SHAPE)
    made = restoration.generate(CONFIG, MODEL, None, {"lq": images, "hq": images, **draws})
    assert made.pictures.shape == (SHAPE[0], 24, 24, 3)
    np.testing.assert_array_equal(made.pictures, made.wanted)
    for image, corner, wanted in zip(images, draws["corner"], made.wanted, strict=True):
        top, left = (int(x) * pixels for x in corner)
        np.testing.assert_array_equal(wanted, image[top : top + 24, left : left + 24])


def test_every_part_is_drawn_and_the_noise_stays_as_it_is():
    draws = restoration.draw(CONFIG, MODEL, jnp.int32(3), SHAPE)
    assert {int(x) for x in draws["corner"].ravel()} == set(range(6))
    whole = restoration.draw(dataclasses.replace(CONFIG, losses=LossConfig()), MODEL, jnp.int32(3), SHAPE)
    assert whole.keys() == {"noise"}
    np.testing.assert_array_equal(draws["noise"], whole["noise"])
    later = restoration.draw(CONFIG, MODEL, jnp.int32(4), SHAPE)
    assert (later["corner"] != draws["corner"]).any()


@pytest.mark.parametrize("crop", [-8, 20, 72])
def test_refuses_parts_that_are_not_whole_latents_of_a_face(crop):
    config = dataclasses.replace(CONFIG, losses=LossConfig(crop=crop))
    with pytest.raises(InterLCMError, match=f"losses.crop is {crop}, but must be a multiple of 8 and at most 64"):
        load_start(config, make_mesh(MeshConfig()))
