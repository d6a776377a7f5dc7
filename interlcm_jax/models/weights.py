"""A network's weights by path, like `down_blocks.0.resnets.1.conv1.kernel`: listed, checked, put onto devices."""

import contextlib
import functools
import types
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Sharding, SingleDeviceSharding

from interlcm_jax.errors import WeightsError, describe
from interlcm_jax.files.paths import in_bucket
from interlcm_jax.files.safetensors import LazyTensor

# Weights that are read from a bucket at the same time.
_REQUESTS = 16
# One sharding for all weights, or a function from a weight's path and shape to its own.
ShardingRule = Sharding | Callable[[str, tuple[int, ...]], Sharding]


def abstract(build: Callable[[nnx.Rngs], nnx.Module]) -> nnx.Module:
    """A network of shapes and dtypes without weights, for loading to fill.

    Args:
        build: makes the network, given its random streams.
    """

    def make() -> nnx.Module:
        return build(_OneKey())

    return nnx.eval_shape(make)


class _OneKey(nnx.Rngs):
    """One key for all layers of an `abstract` network, as nothing is drawn.

    Under tracing `nnx.Rngs` counts its draws in a time that is quadratic in them: 43 s at the released sizes, not 1 s.
    """

    def params(self) -> jax.Array:
        return jax.random.key(0)


def flat_weights(network: nnx.Module) -> dict[str, nnx.Variable]:
    """The network's parameters and running statistics by path; writing to them changes the network."""
    state = nnx.to_flat_state(nnx.state(network, (nnx.Param, nnx.BatchStat)))
    return {".".join(map(str, path)): variable for path, variable in state}


def values(network: nnx.Module, kind: type[nnx.Variable] = nnx.Param) -> dict[str, jax.Array]:
    """The network's variables of one kind by path, as arrays; as shapes where it is `abstract`."""
    state = nnx.to_flat_state(nnx.state(network, kind))
    return {".".join(map(str, path)): variable.get_value() for path, variable in state}


def with_values(network: nnx.Module, weights: Mapping[str, jax.Array]) -> nnx.Module:
    """A copy of the network (which may be `abstract`) that holds these weights, one for each of its variables."""
    graph, state = nnx.split(network)
    flat = [(path, old.replace(weights[".".join(map(str, path))])) for path, old in nnx.to_flat_state(state)]
    return nnx.merge(graph, nnx.from_flat_state(flat))


def skeleton(network: nnx.Module) -> dict[str, jax.ShapeDtypeStruct]:
    """The network's weights as shapes and dtypes; `network` may be `abstract`."""
    values = {path: variable.get_value() for path, variable in flat_weights(network).items()}
    return {path: jax.ShapeDtypeStruct(value.shape, value.dtype) for path, value in values.items()}


@functools.cache
def weight_specs(kind: type[nnx.Module], config: object) -> Mapping[str, jax.ShapeDtypeStruct]:
    """The weights of a network of this kind and size by path, as shapes and dtypes."""
    return types.MappingProxyType(skeleton(abstract(lambda rngs: kind(config, rngs=rngs))))


def lazy_weights(network: nnx.Module) -> dict[str, LazyTensor]:
    """The network's weights as tensors to write, each taken off its device when it is read."""
    return {path: _lazy(path, variable.get_value()) for path, variable in flat_weights(network).items()}


def _lazy(path: str, array: jax.Array) -> LazyTensor:
    return LazyTensor(array.shape, np.dtype(array.dtype), Path(path), lambda index: np.asarray(array)[index])


def misfits(tensors: Mapping[str, LazyTensor], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """What keeps tensors from being the weights of these keys and shapes: one line for each kind of problem."""
    both = [key for key in shapes if key in tensors]
    mis_shaped = [
        f"{key} {tensors[key].shape} instead of {shapes[key]}" for key in both if tensors[key].shape != shapes[key]
    ]
    not_floating = [
        f"{key} ({tensors[key].dtype})" for key in both if not jnp.issubdtype(tensors[key].dtype, jnp.floating)
    ]
    return [
        *describe("missing keys", sorted(shapes.keys() - tensors.keys())),
        *describe("unexpected keys", sorted(tensors.keys() - shapes.keys())),
        *describe("mis-shaped keys", mis_shaped),
        *describe("keys that aren't floating point", not_floating),
    ]


def fill(
    network: nnx.Module,
    tensors: Mapping[str, LazyTensor],
    origin: str | Path,
    sharding: ShardingRule | None = None,
    *,
    allow_nan: bool = False,
) -> None:
    """Reads a network's weights straight onto devices, each by its sharding and in the dtype the network holds it in.

    Every process reads just the slices its own devices hold, one weight at a time; of one in a bucket the
    rows along its first axis, several weights at a time.

    Args:
        network: the network, which may be `abstract`.
        tensors: its weights by path, unread.
        origin: the file they come from, for messages.
        sharding: where the weights go; None is the default device.
        allow_nan: take weights with NaN or infinity in them all the same.

    Raises:
        WeightsError: weights aren't finite; all are named.
    """
    damaged: set[str] = set()

    def place(path: str, spec: jax.ShapeDtypeStruct) -> jax.Array:
        def read(index: tuple[slice, ...]) -> np.ndarray:
            part = tensors[path].read(index)
            # The sum is finite unless an element isn't, and needs no second array.
            if not allow_nan and not np.isfinite(part.sum(dtype=np.float32)):
                damaged.add(path)
            return part.astype(spec.dtype, copy=False)

        rule = sharding(path, spec.shape) if callable(sharding) else sharding
        placed = jax.make_array_from_callback(spec.shape, rule or SingleDeviceSharding(jax.devices()[0]), read)
        # Else many weights are in memory twice, waiting for their copy.
        return placed.block_until_ready()

    specs, variables = skeleton(network), flat_weights(network)
    # A request to a bucket takes its time however small it is.
    with ThreadPoolExecutor(_REQUESTS) if in_bucket(origin) else contextlib.nullcontext() as pool:
        placed = (map if pool is None else pool.map)(lambda path: place(path, specs[path]), variables)
        for variable, weight in zip(variables.values(), placed, strict=True):
            variable.set_value(weight)
    if damaged:
        raise WeightsError(origin, describe("weights with NaN or infinity", sorted(damaged)))
