"""What XLA's compiler is told for each platform."""

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# XLA:CPU hands groups of operations to YNNPACK, which slows this model's attention and its narrow convolutions: without
# it a call of the UNet takes three quarters of the time (two cores, jaxlib 0.10.2).
_OPTIONS = {"cpu": {"xla_cpu_experimental_ynn_fusion_type": ""}}
# In bfloat16, oneDNN's convolutions and matrix products take half the time of XLA's own on processors with AVX512-BF16
# (jaxlib 0.12; earlier ones take the option without effect). In float32 they would replace Winograd's, faster ones.
_BFLOAT16_OPTIONS = {"cpu": {"xla_cpu_experimental_onednn_custom_call": "True"}}
# XLA:CPU optimizes a program of random draws for a second each; it runs for less.
_RUN_ONCE = {"cpu": {"xla_backend_optimization_level": "0"}}


@functools.cache
def compiler_options(platform: str, *, bfloat16: bool = False) -> dict[str, str] | None:
    """For `jax.jit(compiler_options=)`, for a program that runs on `platform`: "cpu", "gpu" or "tpu".

    Options that this jaxlib doesn't know (they come and go) are left out, and those that `XLA_FLAGS` or
    `LIBTPU_INIT_ARGS` set; None is none.

    Args:
        platform: where the program runs.
        bfloat16: whether its arguments, such as the weights, are held in bfloat16.
    """
    more = _BFLOAT16_OPTIONS.get(platform, {}) if bfloat16 else {}
    return _known(platform, _OPTIONS.get(platform, {}) | more)


@functools.cache
def run_once_options(platform: str) -> dict[str, str] | None:
    """The same for a program that runs once, such as that of a network's first weights: quick to compile."""
    return _known(platform, _RUN_ONCE.get(platform, {}))


def _known(platform: str, options: Mapping[str, str]) -> dict[str, str] | None:
    """Those of `options` that the compiler knows and the user hasn't set: these would overrule the user's."""
    theirs = f"{os.environ.get('LIBTPU_INIT_ARGS', '')} {os.environ.get('XLA_FLAGS', '')}"
    ours = {name: value for name, value in options.items() if name not in theirs}
    return {name: value for name, value in ours.items() if _knows(platform, name, value)} or None


def platform_of(arrays: object) -> str:
    """The platform of the devices that hold these arrays: "cpu", "gpu" or "tpu"; the default's where none does."""
    held = (leaf for leaf in jax.tree.leaves(arrays) if isinstance(leaf, jax.Array))
    return next((next(iter(array.devices())).platform for array in held), jax.default_backend())


def holds_bfloat16(arrays: object) -> bool:
    """Whether any of these arrays is of bfloat16."""
    return any(getattr(leaf, "dtype", None) == jnp.bfloat16 for leaf in jax.tree.leaves(arrays))


def traced(values: object) -> bool:
    """Whether JAX traces what is done with these values, or traces anything here at all."""
    return any(isinstance(value, jax.core.Tracer) for value in (*jax.tree.leaves(values), jax.lax.iota(np.int32, 1)))


def jit(function: Callable[..., Any] | None = None, **options: Any) -> Callable[..., Any]:
    """`jax.jit` with what the compiler is told for the platform and the dtype of the arguments; also a decorator.

    Called within a program that JAX traces it is part of that program, which has the say over compiler options. Its
    attribute `on` gives JAX's own jitted function for a platform (and `bfloat16=True`), to lower or trace.
    """
    if function is None:
        return functools.partial(jit, **options)
    part = jax.jit(function, **options)

    @functools.cache
    def whole(platform: str, *, bfloat16: bool = False) -> Callable[..., Any]:
        return jax.jit(function, compiler_options=compiler_options(platform, bfloat16=bfloat16), **options)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        # Once for both: a training step has thousands.
        leaves = jax.tree.leaves((args, kwargs))
        if traced(leaves):
            return part(*args, **kwargs)
        return whole(platform_of(leaves), bfloat16=holds_bfloat16(leaves))(*args, **kwargs)

    call.on = whole
    return call


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
