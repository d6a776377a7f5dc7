"""What the TPU compiler says of a program, without a TPU; JAX alone is needed, so others' programs can be asked too."""

import dataclasses
import os
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import Sharding, SingleDeviceSharding

from benchmarks.hbm_traffic import hbm_traffic

GIGA, TERA = 1e9, 1e12

# A function, and its arguments as shapes on devices.
Program = tuple[Callable[..., Any], tuple[Any, ...]]


@dataclasses.dataclass(frozen=True)
class Cost:
    """What the compiler says of a program; None where nobody measured.

    Attributes:
        tflop: floating-point operations, 1e12.
        accessed: bytes read and written, GB (1e9).
        hbm: of these through the chip's main memory, unpadded; None where a loop hides some.
        temporaries: memory besides arguments and results, GB.
        arguments: weights and inputs, GB.
        seconds: tracing, lowering and compiling.
        megacycles: what the compiler thinks the operations take, one after the other, 1e6 cycles, without the bodies of
            loops and without waiting for copies.
    """

    tflop: float | None = None
    accessed: float | None = None
    hbm: float | None = None
    temporaries: float | None = None
    arguments: float | None = None
    seconds: float | None = None
    megacycles: float | None = None


def compiled(program: Program, options: Mapping[str, str] | None = None) -> tuple[Cost, str]:
    """Compiles a program, by XLA's `options`, for its arguments' devices; returns its cost and its optimized HLO."""
    function, arguments = program
    start = time.perf_counter()
    executable = jax.jit(function).lower(*arguments).compile(options)
    seconds = time.perf_counter() - start
    count, memory, hlo = executable.cost_analysis(), executable.memory_analysis(), executable.as_text()
    cost = Cost(
        count["flops"] / TERA,
        count["bytes accessed"] / GIGA,
        _through_hbm(hlo),
        memory.temp_size_in_bytes / GIGA,
        memory.argument_size_in_bytes / GIGA,
        seconds,
        _megacycles(hlo),
    )
    return cost, hlo


def _megacycles(hlo: str) -> float | None:
    """The sum of the operations' estimates in the entry computation; None where the compiler makes none (on CPU)."""
    estimates = re.findall(r'"estimated_cycles":"(\d+)"', hlo.partition("\nENTRY ")[2])
    return sum(map(int, estimates)) / 1e6 if estimates else None


def _through_hbm(hlo: str) -> float | None:
    try:
        return sum(hbm_traffic(hlo)) / GIGA
    except ValueError:
        return None


def tpu_devices(topology: str) -> list[jax.Device]:
    """The chips of a TPU that isn't there, such as `v5e:2x2`, `v5p:2x2x1` or `v6e:2x2`."""
    # Without this the TPU library asks the cloud's metadata server which machine it runs on, and waits for an answer.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    # No TPU is taken, so another process may have the library open too.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    return list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)


def tpu(topology: str) -> Sharding:
    """The first of these chips."""
    return SingleDeviceSharding(tpu_devices(topology)[0])
