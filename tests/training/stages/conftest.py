"""Pictures that small networks can learn, and a model to begin with."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.training.config import TrainConfig
from interlcm_jax.training.stage import stream
from interlcm_jax.training.start import abstract_networks
from tests.models.random_weights import fill_randomly

BATCH = 2


@pytest.fixture(scope="session")
def batch():
    """Smooth pictures, uint8."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (BATCH, 4, 4, 3))
    hq = jax.image.resize(coarse.astype(np.float32), (BATCH, 64, 64, 3), "cubic").clip(0, 255).astype(np.uint8)
    lq = jax.image.resize(hq[:, 4::8, 4::8].astype(np.float32), hq.shape, "linear").clip(0, 255).astype(np.uint8)
    return {"lq": lq, "hq": hq}


@pytest.fixture(scope="session")
def images(batch):
    """The same in [-1, 1]."""
    return {name: jnp.asarray(x, jnp.float32) / 127.5 - 1 for name, x in batch.items()}


@pytest.fixture(scope="session")
def networks_of():
    """A stage's networks with random weights."""

    @functools.cache
    def make(kind):
        config = TrainConfig(stage=kind(), dtype="float32", remat=False)
        return fill_randomly(abstract_networks(config, ModelConfig.miniature()))

    return make


@pytest.fixture(scope="session")
def key():
    """From a stream's number to its key at a step of a seed."""
    return lambda step=0, seed=0: functools.partial(stream, seed, step=jnp.int32(step))
