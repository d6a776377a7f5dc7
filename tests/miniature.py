"""One miniature model with random weights, shared by the tests so that its programs are compiled once."""

import functools

from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.models.weights import abstract
from interlcm_jax.pipeline import InterLCM, Networks
from tests.models.random_weights import fill_randomly


@functools.cache
def miniature_model() -> InterLCM:
    """The model; tests must not change it."""
    config = ModelConfig.miniature()
    return InterLCM(config, fill_randomly(abstract(lambda rngs: Networks(config, rngs=rngs))))
