"""Random weights without compiling an initializer for every shape."""

import math

import jax.numpy as jnp
import numpy as np
from flax import nnx

from interlcm_jax.models.weights import abstract


def random_network(kind: type[nnx.Module], *arguments: object, **options: object) -> nnx.Module:
    """A network of this kind, its weights drawn by NumPy at a scale that keeps activations near one."""
    return fill_randomly(abstract(lambda rngs: kind(*arguments, rngs=rngs, **options)))


def fill_randomly(network: nnx.Module, seed: int = 0) -> nnx.Module:
    """The same for a network that is abstract already."""
    generator = np.random.default_rng(seed)
    for path, leaf in nnx.to_flat_state(nnx.state(network)):
        noise = generator.standard_normal(leaf.shape) / math.sqrt(math.prod(leaf.shape[:-1]))
        if path[-1] == "scale":
            noise = 1 + 0.1 * noise
        elif path[-1] == "var":
            noise = 0.5 + np.abs(noise)
        leaf.set_value(jnp.asarray(noise, leaf.dtype))
    return network
