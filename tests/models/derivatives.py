"""Ways to differentiate a function of arrays to a number, forward and backward and one after the other."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Arrays = tuple[jax.Array, ...]


def gradient(function: Callable, directions: Arrays) -> Callable:
    """All arguments' gradients."""
    return jax.grad(function, range(len(directions)))


def slope(function: Callable, directions: Arrays) -> Callable:
    """The derivative along `directions`."""
    return lambda *arrays: jax.jvp(function, arrays, directions)[1]


def along(function: Callable, directions: Arrays) -> Callable:
    """The gradients' product with `directions`, which is the same number."""

    def product(*arrays: jax.Array) -> jax.Array:
        gradients = gradient(function, directions)(*arrays)
        return sum(jnp.vdot(g, d) for g, d in zip(gradients, directions, strict=True))

    return product


DERIVATIVES = {
    "vjp": gradient,
    "jvp": slope,
    "jvp of jvp": lambda function, directions: slope(slope(function, directions), directions),
    "jvp of vjp": lambda function, directions: (
        lambda *arrays: jax.jvp(gradient(function, directions), arrays, directions)[1]
    ),
    "vjp of jvp": lambda function, directions: gradient(slope(function, directions), directions),
    "vjp of vjp": lambda function, directions: gradient(along(function, directions), directions),
}
