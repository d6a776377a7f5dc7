"""What XLA's compiler is told for each platform."""

import functools
from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# XLA:CPU hands groups of operations to YNNPACK, which slows this model's attention and its narrow convolutions: without
# it a call of the UNet takes three quarters of the time (two cores, jaxlib 0.10.2).
_OPTIONS = {"cpu": {"xla_cpu_experimental_ynn_fusion_type": ""}}
# XLA:CPU optimises a program of random draws for a second each; it runs for less.
_RUN_ONCE = {"cpu": {"xla_backend_optimization_level": "0"}}


@functools.cache
def compiler_options(platform: str) -> dict[str, str] | None:
    """For `jax.jit(compiler_options=)`, where the program shall run on `platform`: "cpu", "gpu" or "tpu".

    Options that this jaxlib doesn't know (they come and go) are left out; None is none.
    """
    return _known(platform, _OPTIONS)


@functools.cache
def run_once_options(platform: str) -> dict[str, str] | None:
    """The same for a program that runs once, such as that of a network's first weights: quick to compile."""
    return _known(platform, _RUN_ONCE)


def _known(platform: str, options: Mapping[str, Mapping[str, str]]) -> dict[str, str] | None:
    return {n: value for n, value in options.get(platform, {}).items() if _knows(platform, n, value)} or None


def platform_of(weights: object) -> str:
    """The platform of the devices that hold these weights: "cpu", "gpu" or "tpu"."""
    first = jax.tree.leaves(weights)[0]
    return next(iter(first.devices())).platform


def _knows(platform: str, name: str, value: str) -> bool:
    """Whether the compiler takes the option: it refuses those it doesn't know."""
    # A mesh of its own, since there may be one in context, of other devices.
    mesh = Mesh(np.array(jax.local_devices(backend=platform)[:1]), ("only",))
    argument = jax.ShapeDtypeStruct((), np.float32, sharding=NamedSharding(mesh, PartitionSpec()))
    try:
        with jax.set_mesh(mesh):
            jax.jit(lambda x: x, compiler_options={name: value}).lower(argument).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
