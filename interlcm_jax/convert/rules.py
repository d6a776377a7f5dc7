"""The strict two-sided conversion engine: a table of rules ties every JAX weight to one PyTorch key.

A table is read from the JAX side: each path of the network's skeleton must match exactly one rule, which names its
PyTorch key and its layout. That makes a bijection, so the same table converts and exports.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from interlcm_jax.convert.recognize import another_network
from interlcm_jax.errors import WeightsError, describe
from interlcm_jax.files.safetensors import LazyTensor
from interlcm_jax.models.weights import misfits

# Layouts: how PyTorch's axes are permuted to give JAX's (None: as they are).
CONV2D = (2, 3, 1, 0)  # OIHW -> HWIO
CONV1D = (2, 1, 0)  # OIW -> WIO
LINEAR = (1, 0)  # (out, in) -> (in, out)
SAME = None

_HINT = "These weights don't fit this network; is it the right file?"


@dataclasses.dataclass(frozen=True)
class Rule:
    """One row of a table.

    Attributes:
        path: regular expression that the whole JAX path matches, like `(.*)\\.kernel`.
        key: its PyTorch key, with the groups of `path` as `\\1`.
        layout: the permutation from PyTorch's axes to JAX's.
        optional: whether a config may have no weight for this rule.
    """

    path: str
    key: str
    layout: tuple[int, ...] | None = SAME
    optional: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """How one network's weights are named in PyTorch.

    Attributes:
        rules: every JAX path matches exactly one.
        renames: (regular expression, replacement) pairs that turn historical PyTorch keys into today's.
        ignored: regular expressions of PyTorch keys that carry no weight of this network.
    """

    rules: tuple[Rule, ...]
    renames: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Place:
    """Where one JAX weight stands in PyTorch: its key there, its shape there and the permutation to JAX's axes."""

    key: str
    shape: tuple[int, ...]
    layout: tuple[int, ...] | None


def places(skeleton: Mapping[str, jax.ShapeDtypeStruct], table: Table) -> dict[str, Place]:
    """The PyTorch place of every JAX path.

    Raises:
        WeightsError: the table doesn't fit the network: a path with no rule or two, a rule that never fired, or two
            paths with one key. That is a bug in the table, found by the tests.
    """
    problems, found, fired = [], {}, set()
    for path, spec in skeleton.items():
        matches = [(rule, match) for rule in table.rules if (match := re.fullmatch(rule.path, path))]
        if len(matches) != 1:
            problems.append(f"{path}: {len(matches)} rules")
            continue
        [(rule, match)] = matches
        fired.add(rule)
        shape = spec.shape if rule.layout is None else tuple(spec.shape[i] for i in np.argsort(rule.layout))
        found[path] = Place(match.expand(rule.key), shape, rule.layout)
    problems += [f"rule never used: {r.path}" for r in table.rules if r not in fired and not r.optional]
    keys = Counter(place.key for place in found.values())
    problems += describe("keys named twice", sorted(key for key, count in keys.items() if count > 1))
    if problems:
        raise WeightsError("conversion table", problems)
    return found


def to_jax(
    source: Mapping[str, LazyTensor], skeleton: Mapping[str, jax.ShapeDtypeStruct], table: Table, origin: Path
) -> dict[str, LazyTensor]:
    """Renames and permutes PyTorch weights into a network's weights, still unread.

    Args:
        source: PyTorch's tensors by key.
        skeleton: the network's weights by path (see `models.weights.skeleton`).
        table: the network's table.
        origin: the file or folder, for messages.

    Raises:
        WeightsError: any key is missing, unexpected, named twice after renaming, mis-shaped or not floating point;
            all of them are listed, unless the keys are those of another network, which then is named.
    """
    wanted = places(skeleton, table)
    renamed, problems = _rename(source, table)
    for place in wanted.values():
        if place.layout == LINEAR and place.key in renamed:
            renamed[place.key] = _as_linear(renamed[place.key], place.shape)
    problems += misfits(renamed, {place.key: place.shape for place in wanted.values()})
    if problems:
        other = another_network(source, [place.key for place in wanted.values()])
        raise WeightsError(origin, [other] if other else problems, _HINT)
    return {path: _permute(renamed[place.key], place.layout) for path, place in wanted.items()}


def to_torch(
    weights: Mapping[str, LazyTensor], skeleton: Mapping[str, jax.ShapeDtypeStruct], table: Table
) -> dict[str, LazyTensor]:
    """The inverse of `to_jax`: a network's weights under PyTorch's keys and layouts, still unread."""
    wanted = places(skeleton, table)
    return {
        place.key: _permute(weights[path], None if place.layout is None else tuple(np.argsort(place.layout)))
        for path, place in wanted.items()
    }


def _rename(source: Mapping[str, LazyTensor], table: Table) -> tuple[dict[str, LazyTensor], list[str]]:
    renamed, twice = {}, []
    for original, tensor in source.items():
        key = original
        for pattern, replacement in table.renames:
            key = re.sub(pattern, replacement, key)
        if any(re.fullmatch(pattern, key) for pattern in table.ignored):
            continue
        if key in renamed:
            twice.append(key if key == original else f"{key} (also as {original})")
        renamed[key] = tensor
    return renamed, describe("duplicate keys", sorted(twice))


def _as_linear(tensor: LazyTensor, shape: tuple[int, ...]) -> LazyTensor:
    """A linear layer's weight, also where it was published as a convolution's of size 1, like (out, in, 1, 1)."""
    ones = len(tensor.shape) - len(shape)
    if ones < 1 or tensor.shape != (*shape, *[1] * ones):
        return tensor

    def load(index: Any) -> np.ndarray:
        return tensor.read((..., *[0] * ones) if index is ... else (*index, ..., *[0] * ones))

    return dataclasses.replace(tensor, shape=shape, load=load)


def _permute(tensor: LazyTensor, axes: tuple[int, ...] | None) -> LazyTensor:
    return tensor if axes is None else tensor.transposed(axes)
