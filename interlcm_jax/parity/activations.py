"""What each module of a network takes in and gives out, by name: recorded in PyTorch, compared in JAX."""

import dataclasses
import functools
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from interlcm_jax.errors import InterLCMError
from interlcm_jax.runtime.compiler_options import jit


@dataclasses.dataclass(frozen=True)
class Activation:
    """What PyTorch's module took in and gave out at its last call.

    Attributes:
        taken: its first array, channels last, float32; None for a module that takes none.
        given: its arrays in order, channels last, float32.
        seconds: how long the call took.
    """

    taken: np.ndarray | None
    given: tuple[np.ndarray, ...]
    seconds: float


@dataclasses.dataclass(frozen=True)
class Difference:
    """How far two arrays are from each other, over the deviation of PyTorch's.

    Attributes:
        largest: the largest error.
        rms: the root of the mean squared error.
    """

    largest: float
    rms: float


def record(
    module: torch.nn.Module,
    call: Callable[[torch.nn.Module], object],
    names: Collection[str],
    *,
    channels_first: Collection[int] = (4,),
) -> dict[str, Activation]:
    """Calls a PyTorch network and records its modules' activations, in the order in which they are done.

    Args:
        module: the network.
        call: calls it.
        names: PyTorch's names of the modules to record, "" being the whole network; those that aren't called are left
            out.
        channels_first: ranks of the arrays that have channels at axis 1. A convolution's and a GroupNorm's always do.
    """
    found: dict[str, Activation] = {}
    started: dict[str, float] = {}

    def before(name: str, *_: object) -> None:
        started[name] = time.perf_counter()

    def after(name: str, layer: torch.nn.Module, args: tuple, options: Mapping[str, Any], out: object) -> None:
        seconds = time.perf_counter() - started[name]
        layout = functools.partial(to_numpy, channels_first=_ranks(layer, channels_first))
        taken = [layout(x) for x in _tensors([*args, options.get("hidden_states")])]
        found.pop(name, None)
        found[name] = Activation(taken[0] if taken else None, tuple(map(layout, _tensors(out))), seconds)

    modules = dict(module.named_modules())
    hooks = []
    try:
        for name in names:
            hooks.append(modules[name].register_forward_pre_hook(functools.partial(before, name)))
            hooks.append(modules[name].register_forward_hook(functools.partial(after, name), with_kwargs=True))
        with torch.no_grad():
            call(module)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def differences(
    network: nnx.Module,
    call: Callable[..., object],
    arguments: tuple[Any, ...],
    references: Mapping[str, Activation],
    fed: Collection[str] = (),
    *,
    precision: str = "highest",
) -> tuple[dict[str, tuple[Difference | None, Difference]], Any]:
    """Calls a JAX network and compares its modules' activations with PyTorch's, in one compiled program.

    Args:
        network: the network; it isn't changed.
        call: calls it: `call(network, *arguments)`.
        arguments: arrays.
        references: PyTorch's activations by path; each module is compared with its own.
        fed: paths of modules, none within another, after which the network goes on with PyTorch's output in place of
            its own: so each is compared by what it adds to the error, not by what reaches it.
        precision: of the matrix products, as `jax.default_matmul_precision` takes it.

    Returns:
        By path, the difference of what comes in (None where the two sides have it in other shapes) and of what comes
        out; and what `call` returned.

    Raises:
        InterLCMError: a module gives other numbers of arrays or other shapes than PyTorch's.
    """
    graph, state = nnx.split(network)

    def run(state: nnx.State, references: Mapping[str, Any], arguments: tuple[Any, ...]) -> tuple[dict[str, Any], Any]:
        tapped, found = nnx.merge(graph, state), {}
        for path, (taken, given) in references.items():
            _tap(_module(tapped, path), functools.partial(_compare, path, taken, given, path in fed, found))
        out = call(tapped, *arguments)
        return found, out

    arrays = {path: (one.taken, one.given) for path, one in references.items()}
    with jax.default_matmul_precision(precision):
        program = jit(run)
        found, out = jax.device_get(program(state, arrays, arguments))
    if silent := [path for path in references if path not in found]:
        raise InterLCMError(f"JAX doesn't call {', '.join(silent)}, which PyTorch calls")
    return {path: _relative(references[path], *found[path]) for path in references}, out


def to_numpy(tensor: torch.Tensor, channels_first: Collection[int] = (4,)) -> np.ndarray:
    """A copy as float32, channels last; `channels_first` has the ranks of the arrays with channels at axis 1."""
    array = tensor.detach().float().cpu().numpy()
    # PyTorch may write over what it gave out.
    return np.array(np.moveaxis(array, 1, -1) if array.ndim in channels_first else array, order="C")


def difference(ours: Sequence[Any], theirs: Sequence[np.ndarray]) -> Difference:
    """How far arrays are from PyTorch's of the same shapes, in the worst of them."""
    errors = [np.asarray(a, np.float64).reshape(b.shape) - b for a, b in zip(ours, theirs, strict=True)]
    scales = [_deviation(array) for array in theirs]
    return Difference(
        max(float(np.abs(error).max()) / scale for error, scale in zip(errors, scales, strict=True)),
        max(float(np.square(error).mean()) ** 0.5 / scale for error, scale in zip(errors, scales, strict=True)),
    )


def modules(network: nnx.Module, path: str = "") -> Iterator[str]:
    """Paths of all modules within a network, like `down_blocks.0.resnets.1.conv1`."""
    for name, child in _children(network):
        inner = f"{path}.{name}" if path else name
        if not isinstance(child, nnx.List):
            yield inner
        yield from modules(child, inner)


def _compare(
    path: str,
    taken: jax.Array | None,
    given: tuple[jax.Array, ...],
    feed: bool,
    found: dict[str, Any],
    inputs: list[jax.Array],
    out: object,
) -> object:
    """Notes how far a module's arrays are from PyTorch's; returns what the network goes on with."""
    ours, tree = jax.tree.flatten(out)
    shapes = [x.shape for x in ours], [x.shape for x in given]
    if len(ours) != len(given) or any(a.size != b.size for a, b in zip(ours, given, strict=True)):
        raise InterLCMError(f"{path}: JAX gives arrays of {shapes[0]}, PyTorch of {shapes[1]}")
    same = taken is not None and inputs and inputs[0].size == taken.size
    found[path] = (
        _error([inputs[0]], [taken]) if same else None,
        _error(ours, given),
    )
    if not feed:
        return out
    return jax.tree.unflatten(tree, [b.reshape(a.shape).astype(a.dtype) for a, b in zip(ours, given, strict=True)])


def _error(ours: list[jax.Array], theirs: list[jax.Array]) -> tuple[list[jax.Array], list[jax.Array]]:
    """The largest and the mean squared error of each array."""
    errors = [x.astype(jnp.float32) - y.reshape(x.shape) for x, y in zip(ours, theirs, strict=True)]
    return [jnp.abs(error).max() for error in errors], [jnp.square(error).mean() for error in errors]


def _relative(reference: Activation, taken: Any, given: Any) -> tuple[Difference | None, Difference]:
    def over(arrays: tuple[np.ndarray, ...], errors: Any) -> Difference:
        scales = [_deviation(array) for array in arrays]
        largest, squares = (np.asarray(each, np.float64) for each in errors)
        return Difference(float((largest / scales).max()), float((np.sqrt(squares) / scales).max()))

    return None if taken is None else over((reference.taken,), taken), over(reference.given, given)


def _deviation(array: np.ndarray) -> float:
    """What errors are measured by: the deviation of PyTorch's array, or 1 for one that is the same everywhere."""
    return float(array.std(dtype=np.float64)) or 1.0


def _tap(module: nnx.Module, note: Callable[[list[jax.Array], object], object]) -> None:
    """Has `note` see each call of this one module, and say what comes out of it.

    The module becomes one of a subclass: it stays what it is to its parent, and a parent that multiplies by a plain
    layer's weights itself calls this one.
    """
    kind = type(module)

    def called(self: nnx.Module, *args: object, **options: object) -> object:
        arrays = [x for x in jax.tree.leaves((args, options)) if isinstance(x, jax.Array)]
        return note(arrays, kind.__call__(self, *args, **options))

    module.__class__ = type(kind.__name__, (kind,), {"__call__": called})


def _module(network: nnx.Module, path: str) -> nnx.Module:
    for name in path.split(".") if path else ():
        network = network[int(name)] if name.isdigit() else getattr(network, name)
    return network


def _children(module: nnx.Module) -> Iterator[tuple[str, nnx.Module]]:
    items = enumerate(module) if isinstance(module, nnx.List) else vars(module).items()
    yield from ((str(name), child) for name, child in items if isinstance(child, nnx.Module))


def _ranks(layer: torch.nn.Module, channels_first: Collection[int]) -> Collection[int]:
    always = isinstance(layer, torch.nn.GroupNorm | torch.nn.modules.conv._ConvNd)
    return (3, 4) if always else channels_first


def _tensors(tree: object) -> list[torch.Tensor]:
    """The tensors of what a module takes or gives, in order."""
    if isinstance(tree, torch.Tensor):
        return [tree]
    if isinstance(tree, Mapping):
        tree = tree.values()
    if isinstance(tree, str) or not hasattr(tree, "__iter__"):
        return []
    return [tensor for part in tree for tensor in _tensors(part)]
