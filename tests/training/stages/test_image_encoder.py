"""The image encoder's pre-training: what is hidden, and what is wanted."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.training.stages import ImageEncoder, image_encoder

MODEL = ModelConfig.miniature()


def test_hidden_patches_are_not_seen(networks_of):
    networks = networks_of(ImageEncoder)
    side = MODEL.clip_vision.image_size // MODEL.clip_vision.patch_size
    seen = jnp.arange(side * side)[None] % 3 > 0
    images = jax.random.normal(jax.random.key(0), (1, 32, 32, 3))
    hidden = jnp.repeat(jnp.repeat(~seen.reshape(1, side, side), 8, 1), 8, 2)[..., None]
    complete = functools.partial(image_encoder.completed, networks.clip_vision, networks.head, seen=seen)
    np.testing.assert_array_equal(complete(images), complete(jnp.where(hidden, 7.0, images)))
    assert (complete(images) != complete(jnp.where(hidden, images, 7.0))).any()


def test_patches_are_taken_row_by_row():
    image = jnp.arange(2 * 6 * 6 * 3.0).reshape(2, 6, 6, 3)
    found = image_encoder.patches(image, 3)
    assert found.shape == (2, 4, 27)
    np.testing.assert_array_equal(found[1, 1].reshape(3, 3, 3), image[1, :3, 3:])
