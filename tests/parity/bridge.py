"""From a PyTorch module to a JAX network through the shipped converter, and the comparison of the two."""

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from interlcm_jax.convert.rules import Table, places, to_jax
from interlcm_jax.files.safetensors import from_array
from interlcm_jax.models import weights
from interlcm_jax.models.weights import skeleton

CLOSED_FORM, BLOCK, NETWORK = 1e-6, 2e-5, 5e-5  # maximum absolute error at unit scale, float32
GRADIENT = 1e-4  # relative to the largest element of the PyTorch gradient


def randomize(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Gives every weight a random value that keeps activations near unit scale, zero-initialized layers included."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            tensor.copy_(0.5 + noise.abs())
        elif tensor.ndim > 1:
            tensor.copy_(noise / tensor[0].numel() ** 0.5)
        elif name.endswith("weight"):
            tensor.copy_(1 + 0.1 * noise)
        else:
            tensor.copy_(0.1 * noise)
    return module.eval()


def abstract(network: Callable[..., nnx.Module], *args: object, **kwargs: object) -> nnx.Module:
    """A network or block without weights, for `load` to fill; computing initial ones would cost more than the test."""
    init = {"dtype": jnp.float32, "param_dtype": jnp.float32, **kwargs}
    return weights.abstract(lambda rngs: network(*args, rngs=rngs, **init))


def load(network: nnx.Module, state_dict: dict[str, torch.Tensor], table: Table) -> nnx.Module:
    """Fills a JAX network, which may be `abstract`, with a PyTorch state dict by the network's own table."""
    source = {k: from_array(v.detach().numpy(), Path("test")) for k, v in state_dict.items()}
    converted = to_jax(source, skeleton(network), table, Path("test"))
    for path, leaf in nnx.to_flat_state(nnx.state(network, (nnx.Param, nnx.BatchStat))):
        leaf.set_value(jnp.asarray(converted[".".join(map(str, path))].read()))
    return network


def run(network: nnx.Module, *args: object, method: str = "__call__") -> object:
    """Calls a method of a network inside one jit: op by op, compiling takes most of a test's time."""
    graph, state = nnx.split(network)
    return jax.jit(lambda state, *args: getattr(nnx.merge(graph, state), method)(*args))(state, *args)


class _Wrapped(nnx.Module):
    """A block under a name, since a table's rules are about blocks within a network."""

    def __init__(self, inner: nnx.Module):
        self.inner = inner


def load_block(block: nnx.Module, module: torch.nn.Module, table: Table) -> nnx.Module:
    """Fills one block by its network's table, of which it uses just some rules."""
    rules = tuple(dataclasses.replace(rule, optional=True) for rule in table.rules)
    state_dict = {f"inner.{key}": value for key, value in module.state_dict().items()}
    return load(_Wrapped(block), state_dict, dataclasses.replace(table, rules=rules)).inner


def nhwc(x: torch.Tensor) -> jax.Array:
    """(B, C, H, W) in PyTorch to (B, H, W, C) in JAX."""
    return jnp.asarray(x.detach().numpy().transpose(0, 2, 3, 1))


def assert_close(actual: jax.Array, expected: torch.Tensor, tolerance: float) -> None:
    """Compares outputs; 4-D PyTorch outputs are taken to NHWC first. The scale must be near 1 for `tolerance` to mean
    anything, so that is checked too."""
    reference = expected.detach().numpy()
    reference = reference.transpose(0, 2, 3, 1) if reference.ndim == 4 else reference
    assert actual.shape == reference.shape
    assert 0.05 < reference.std() < 20, f"the test's outputs aren't near unit scale: {reference.std()}"
    error = np.abs(np.asarray(actual, np.float32) - reference).max()
    assert error <= tolerance, f"maximum absolute error {error:.2e} > {tolerance:.0e}"


def assert_gradient_close(actual: jax.Array, expected: torch.Tensor, tolerance: float = GRADIENT) -> None:
    """Compares the gradient of an input with `x.grad`; a 4-D one is taken to NHWC first."""
    reference = expected.detach().numpy()
    reference = reference.transpose(0, 2, 3, 1) if reference.ndim == 4 else reference
    assert actual.shape == reference.shape
    error = _relative_error(np.asarray(actual), reference)
    assert error <= tolerance, f"relative gradient error {error:.2e} > {tolerance:.0e}"


def assert_gradients_close(
    grads: nnx.State, module: torch.nn.Module, table: Table, *, zero: Sequence[str] = (), tolerance: float = GRADIENT
) -> None:
    """Compares the gradients of all parameters with PyTorch's `.grad`, tensor by tensor, by the conversion table.

    Both sides must have a gradient for the same parameters; PyTorch parameters without a `.grad` count as absent.

    Args:
        grads: what `nnx.grad` returns, for the whole network.
        module: the PyTorch twin, after `backward`.
        table: the network's conversion table.
        zero: regular expressions of JAX paths whose gradient is zero but for rounding (the bias of attention's keys,
            which shifts all scores of a query alike); they must be tiny beside the network's largest gradient.
        tolerance: bound of the largest difference over the largest element of the PyTorch gradient.
    """
    ours = {".".join(map(str, path)): np.asarray(leaf.get_value()) for path, leaf in nnx.to_flat_state(grads)}
    shapes = {path: jax.ShapeDtypeStruct(grad.shape, grad.dtype) for path, grad in ours.items()}
    source = {
        k: from_array(p.grad.numpy(), Path("gradients")) for k, p in module.named_parameters() if p.grad is not None
    }
    # Running statistics have rules in the table but no gradients.
    optional = dataclasses.replace(table, rules=tuple(dataclasses.replace(r, optional=True) for r in table.rules))
    theirs = {path: tensor.read() for path, tensor in to_jax(source, shapes, optional, Path("gradients")).items()}
    largest = max(np.abs(grad).max() for grad in theirs.values())
    wrong = []
    for path, reference in theirs.items():
        if any(re.fullmatch(pattern, path) for pattern in zero):
            error = max(np.abs(ours[path]).max(), np.abs(reference).max()) / largest
        else:
            error = _relative_error(ours[path], reference)
        if not error <= tolerance:
            wrong.append(f"{path} {error:.2e}")
    assert not wrong, f"relative gradient error > {tolerance:.0e}: {', '.join(wrong)}"


def assert_same_weights(network: nnx.Module, make: Callable[[], torch.nn.Module], table: Table, count: int) -> None:
    """That both sides have the same keys and shapes, at sizes too large to compute, and this many learned numbers."""
    with torch.device("meta"):
        theirs = make()
    # PyTorch counts the batches that a norm has seen.
    expected = {k: tuple(v.shape) for k, v in theirs.state_dict().items() if not k.endswith("num_batches_tracked")}
    shapes = skeleton(network)
    assert {place.key: place.shape for place in places(shapes, table).values()} == expected
    learned = [spec for path, spec in shapes.items() if not path.endswith((".mean", ".var"))]
    assert sum(math.prod(spec.shape) for spec in learned) == sum(p.numel() for p in theirs.parameters()) == count


def _relative_error(actual: np.ndarray, reference: np.ndarray) -> float:
    scale = np.abs(reference).max()
    assert scale > 0, "the PyTorch gradient is all zeros"
    return float(np.abs(actual - reference).max() / scale)
