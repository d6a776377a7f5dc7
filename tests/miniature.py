"""One miniature model with random weights, shared by the tests so that its programs are compiled once."""

import functools

import jax
import numpy as np

from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.pipeline import InterLCM, Networks
from tests.models.random_weights import random_network


@functools.cache
def miniature_model() -> InterLCM:
    """The model; tests must not change it."""
    config = ModelConfig.miniature()
    # Dtypes and device as `from_pretrained` has them, so that a loaded copy runs the programs compiled for this one.
    dtypes = {"dtype": np.dtype("float32"), "param_dtype": np.dtype("float32")}
    model = InterLCM(config, random_network(Networks, config, **dtypes))
    model.weights = jax.device_put(model.weights, jax.devices()[0])
    return model
