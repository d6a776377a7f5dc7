"""Random weights without compiling an initializer for every shape."""

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from flax import nnx


def with_random_weights(build: Callable[[], nnx.Module], seed: int = 0) -> nnx.Module:
    """Builds a network abstractly, then draws its weights by NumPy at a scale that keeps activations near one."""
    return fill_randomly(nnx.eval_shape(build), seed)


def fill_randomly(network: nnx.Module, seed: int = 0) -> nnx.Module:
    """The same for a network that is abstract already."""
    generator = np.random.default_rng(seed)
    for path, leaf in nnx.to_flat_state(nnx.state(network)):
        noise = generator.standard_normal(leaf.shape) / math.sqrt(math.prod(leaf.shape[:-1]))
        leaf.set_value(jnp.asarray(1 + 0.1 * noise if path[-1] == "scale" else noise, leaf.dtype))
    return network
