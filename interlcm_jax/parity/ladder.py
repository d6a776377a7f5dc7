"""From activations to a verdict: each module's error, the share of it that is its own, and the first that is wrong."""

import copy
import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import torch
from flax import nnx

from interlcm_jax.convert.rules import Table, places
from interlcm_jax.models.weights import skeleton
from interlcm_jax.parity.activations import Activation, Difference, difference, differences, modules, record

# Root mean squared error over PyTorch's deviation that a module may add in float32. The most at the real sizes is
# 1.9e-5: the VAE's norms sum over a million values.
TOLERANCE = 3e-5
# A network, or the whole restoration, may be off by this many times as much as a module.
WHOLE = 10
# In half precision a network may be this many times as far from float32 as PyTorch's is.
MARGIN = 2.0

_Found = Mapping[str, tuple[Difference | None, Difference]]


@dataclasses.dataclass(frozen=True)
class Rung:
    """One comparison.

    Attributes:
        name: what is compared, like `unet.mid_block.resnets.0`.
        error: difference of its output, both networks running from the same input.
        tolerance: the largest root mean squared error that passes.
        new: difference of its output where all that comes in is PyTorch's own; None where that isn't measured.
        own: difference of PyTorch's output in half precision from that in float32; None for float32.
        seconds: how long PyTorch took, and JAX; None where it wasn't measured.
    """

    name: str
    error: Difference
    tolerance: float
    new: Difference | None = None
    own: Difference | None = None
    seconds: tuple[float | None, float | None] = (None, None)

    @property
    def passes(self) -> bool:
        """Whether it is within what is allowed; NaN never is."""
        if self.own is not None:
            return self.error.rms <= max(MARGIN * self.own.rms, self.tolerance)
        return (self.new or self.error).rms <= self.tolerance


@dataclasses.dataclass(frozen=True)
class Twins:
    """A JAX network and its PyTorch twin, and how each is called.

    Attributes:
        name: what the network goes by in the report; the part of it that is called, like `vae.decode`.
        network: the JAX network.
        module: the PyTorch network, in float32.
        call: calls the JAX network: `call(network, *arguments)`.
        arguments: the arrays that `call` takes.
        call_module: calls the PyTorch network, in its dtype, with the same numbers.
        names: PyTorch's name of each JAX module that has one there; see `pairs`.
        expected: what `call` returns, as PyTorch has it, channels last; None leaves the network as a whole out.
        channels_first: see `activations.record`.
    """

    name: str
    network: nnx.Module
    module: torch.nn.Module
    call: Callable[..., object]
    arguments: tuple[Any, ...]
    call_module: Callable[[torch.nn.Module], object]
    names: Mapping[str, str]
    expected: Any = None
    channels_first: Collection[int] = (4,)

    @property
    def network_name(self) -> str:
        """The network's own name: without the part that is called."""
        return self.name.partition(".")[0]

    def record(self, paths: Collection[str]) -> dict[str, Activation]:
        """PyTorch's activations by JAX path, in the order in which PyTorch has them."""
        paths_of = {self.names[path]: path for path in paths}
        found = record(self.module, self.call_module, paths_of.keys(), channels_first=self.channels_first)
        return {paths_of[name]: activation for name, activation in found.items()}

    def compare(
        self, activations: Mapping[str, Activation], fed: Collection[str], precision: str
    ) -> tuple[_Found, object]:
        """`activations.differences` of this network."""
        return differences(self.network, self.call, self.arguments, activations, fed, precision=precision)


def pairs(network: nnx.Module, module: torch.nn.Module, table: Table) -> dict[str, str]:
    """PyTorch's name of each module of a JAX network: that of its weights, else the same; none where there is none."""
    known = dict(module.named_modules())
    weights = places(skeleton(network), table)
    owners = {_parent(path): _parent(place.key) for path, place in weights.items()}
    # A table may name a tower as part of a larger network, which PyTorch may have alone or whole.
    roots = {place.key.partition(".")[0] for place in weights.values()}
    root = f"{roots.pop()}." if len(roots) == 1 else ""
    names = {}
    for path in modules(network):
        owner = owners.get(path, path)
        candidates = (path, root + path, owner, owner.removeprefix(root))
        if found := [name for name in candidates if name in known]:
            names[path] = found[0]
    return names


def depth(path: str) -> int:
    """How deep a module stands: 1 within the network itself; lists of modules don't count."""
    return sum(not name.isdigit() for name in path.split("."))


def climb(
    twins: Twins, *, levels: int | None = 2, tolerance: float = TOLERANCE, precision: str = "highest"
) -> tuple[list[Rung], str | None]:
    """Compares two networks module by module, and names the smallest one that is wrong by itself.

    Args:
        twins: the networks.
        levels: how deep to look: 1 is the blocks, 2 what they are made of (resnets, attentions), None every layer.
        tolerance: the largest root mean squared error that a module may add, over PyTorch's deviation.
        precision: see `activations.differences`.

    Returns:
        The rungs in PyTorch's order, the whole network last; and what is wrong, in words, None if nothing is.

    Raises:
        InterLCMError: a module gives other numbers of arrays or other shapes than PyTorch's.
    """
    levels = levels or max(map(depth, twins.names))
    activations = twins.record([path for path in twins.names if depth(path) <= levels])
    errors, out = twins.compare(activations, (), precision)
    new: dict[str, tuple[Difference | None, Difference]] = {}
    for level in range(1, levels + 1):
        fed = _frontier(activations, level)
        found, _ = twins.compare({path: activations[path] for path in fed}, fed, precision)
        new |= {path: found[path] for path in fed if path not in new}
    own = _own(twins, activations) if _half(twins.network) else {}
    network = twins.network_name
    rungs = [
        Rung(f"{network}.{path}", errors[path][1], tolerance, new[path][1], own.get(path), (one.seconds, None))
        for path, one in activations.items()
    ]
    if twins.expected is not None:
        whole = difference(jax.tree.leaves(out), jax.tree.leaves(twins.expected))
        rungs.append(Rung(twins.name, whole, WHOLE * tolerance, own=rungs[-1].own))
    fault = _fault(twins, activations, new, tolerance, precision) if not own else None
    return rungs, fault or next((f"{rung.name} is off" for rung in rungs if not rung.passes), None)


def _frontier(paths: Collection[str], level: int) -> list[str]:
    """The modules that the network is cut into at a level: none is within another."""
    upper = [path for path in paths if depth(path) <= level]
    parents = {path[:end] for path in upper for end in range(len(path)) if path[end] == "."}
    return [path for path in upper if path not in parents]


def _fault(
    twins: Twins, activations: Mapping[str, Activation], new: _Found, tolerance: float, precision: str
) -> str | None:
    """Goes down from the first module that is wrong by itself to the smallest; says which it is."""
    wrong = [path for path in activations if not new[path][1].rms <= tolerance]
    if not wrong:
        return None
    path = min(wrong, key=depth)
    found, fed = new, _frontier(activations, depth(path))
    while True:
        taken, _ = found[path]
        if taken is not None and not taken.rms <= tolerance:
            return f"{twins.network_name}.{path} gets another input than in PyTorch, though all before it agrees"
        parts = [name for name in twins.names if name.startswith(f"{path}.") and depth(name) == depth(path) + 1]
        fed = [name for name in fed if name != path] + parts
        activations = twins.record(fed)
        found, _ = twins.compare(activations, list(activations), precision)
        wrong = [name for name in activations if name in parts and not found[name][1].rms <= tolerance]
        if not wrong:
            what = "its parts agree, what it does between them doesn't" if parts else "a layer of its own"
            return f"{twins.network_name}.{path}: {what}"
        path = wrong[0]


def _own(twins: Twins, activations: Mapping[str, Activation]) -> dict[str, Difference]:
    """How far PyTorch itself is from float32 in half precision, by path."""
    half = dataclasses.replace(twins, module=copy.deepcopy(twins.module).to(torch.bfloat16))
    return {
        path: difference(one.given, activations[path].given) for path, one in half.record(list(activations)).items()
    }


def _half(network: nnx.Module) -> bool:
    return any(getattr(layer, "dtype", None) == jnp.bfloat16 for _, layer in nnx.iter_modules(network))


def _parent(name: str) -> str:
    return name.rpartition(".")[0]
