"""A network's weights by path, like `down_blocks.0.resnets.1.conv1.kernel`."""

import jax
from flax import nnx


def flat_weights(network: nnx.Module) -> dict[str, nnx.Variable]:
    """The network's parameters and running statistics by path; writing to them changes the network."""
    state = nnx.to_flat_state(nnx.state(network, (nnx.Param, nnx.BatchStat)))
    return {".".join(map(str, path)): variable for path, variable in state}


def skeleton(network: nnx.Module) -> dict[str, jax.ShapeDtypeStruct]:
    """The network's weights as shapes and dtypes; `network` may be abstract (`nnx.eval_shape`)."""
    values = {path: variable.get_value() for path, variable in flat_weights(network).items()}
    return {path: jax.ShapeDtypeStruct(value.shape, value.dtype) for path, value in values.items()}
