"""One miniature model with random weights, shared by the tests so that its programs are compiled once."""

import functools

from flax import nnx

from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.pipeline import InterLCM, Networks
from tests.models.random_weights import with_random_weights


@functools.cache
def miniature_model() -> InterLCM:
    """The model; tests must not change it."""
    config = ModelConfig.miniature()
    return InterLCM(config, with_random_weights(lambda: Networks(config, rngs=nnx.Rngs(0))))
