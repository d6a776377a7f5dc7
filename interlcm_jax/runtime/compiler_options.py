"""What XLA's compiler is told for each platform."""

import functools
import os
from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# XLA:CPU hands groups of operations to YNNPACK, which slows this model's attention and its narrow convolutions: without
# it a call of the UNet takes three quarters of the time (two cores, jaxlib 0.10.2).
_OPTIONS = {"cpu": {"xla_cpu_experimental_ynn_fusion_type": ""}}
# XLA:TPU copies weights into its fast memory ahead of their use. Without that the restoration of one face takes 0.63 of
# the memory besides weights and 0.66 of the bytes read and written, as many of them in main memory; the compiler thinks
# it takes 9 % more cycles (v5e, libtpu 0.0.50; no TPU has run it). Training leaves the choice to XLA.
RESTORATION = {**_OPTIONS, "tpu": {"xla_msa_max_outstanding_prefetches": "0"}}
# XLA:CPU optimizes a program of random draws for a second each; it runs for less.
_RUN_ONCE = {"cpu": {"xla_backend_optimization_level": "0"}}


@functools.cache
def compiler_options(platform: str) -> dict[str, str] | None:
    """For `jax.jit(compiler_options=)`, for a program that runs on `platform`: "cpu", "gpu" or "tpu".

    Options that this jaxlib doesn't know (they come and go) are left out, and those that `XLA_FLAGS` or
    `LIBTPU_INIT_ARGS` set; None is none.
    """
    return _known(platform, _OPTIONS)


@functools.cache
def restoration_options(platform: str) -> dict[str, str] | None:
    """The same for the restoration, see `RESTORATION`."""
    return _known(platform, RESTORATION)


@functools.cache
def run_once_options(platform: str) -> dict[str, str] | None:
    """The same for a program that runs once, such as that of a network's first weights: quick to compile."""
    return _known(platform, _RUN_ONCE)


def _known(platform: str, options: Mapping[str, Mapping[str, str]]) -> dict[str, str] | None:
    """Those of `options` that the compiler knows and the user hasn't set: these would overrule the user's."""
    theirs = f"{os.environ.get('LIBTPU_INIT_ARGS', '')} {os.environ.get('XLA_FLAGS', '')}"
    ours = {name: value for name, value in options.get(platform, {}).items() if name not in theirs}
    return {name: value for name, value in ours.items() if _knows(platform, name, value)} or None


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
