"""A network's weights by path, like `down_blocks.0.resnets.1.conv1.kernel`."""

import types
from collections.abc import Callable

import jax
from flax import nnx


def abstract(build: Callable[[nnx.Rngs], nnx.Module]) -> nnx.Module:
    """A network of shapes and dtypes without weights, for loading to fill.

    Args:
        build: makes the network, given its random streams.
    """

    def make() -> nnx.Module:
        # All layers get one key, as nothing is drawn. Under tracing `nnx.Rngs` counts its draws in a time that is
        # quadratic in them: 43 s at the released sizes, against 1 s.
        key = jax.random.key(0)
        return build(types.SimpleNamespace(params=lambda: key))

    return nnx.eval_shape(make)


def flat_weights(network: nnx.Module) -> dict[str, nnx.Variable]:
    """The network's parameters and running statistics by path; writing to them changes the network."""
    state = nnx.to_flat_state(nnx.state(network, (nnx.Param, nnx.BatchStat)))
    return {".".join(map(str, path)): variable for path, variable in state}


def skeleton(network: nnx.Module) -> dict[str, jax.ShapeDtypeStruct]:
    """The network's weights as shapes and dtypes; `network` may be `abstract`."""
    values = {path: variable.get_value() for path, variable in flat_weights(network).items()}
    return {path: jax.ShapeDtypeStruct(value.shape, value.dtype) for path, value in values.items()}
