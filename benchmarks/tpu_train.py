"""The training step compiled for TPUs that aren't there: memory, FLOPs and traffic of each chip, and XLA's seconds.

    python -m benchmarks.tpu_train --topology v5e:4x4 v5p:2x2x4 v6e:4x4 --images-per-chip 1 --remat blocks

is the whole step of the released recipe (three network calls at 512x512, all losses, Adam, moving average) in bfloat16,
as `train.py` runs it. It needs the TPU compiler (`pip install 'jax[tpu]'`), which runs on any Linux machine. A compile
at the full size takes more than half an hour of a core, and 15 GB; with `--effort -1` nine minutes and 9 GB for v5e,
more for v6e. The compiler then puts nothing into the fast memory on the chip: every temporary counts as memory, and
"GB accessed" lacks the copies into the fast one. All numbers are for one chip.

- "GiB" is what the step holds: arguments, results and temporaries, counting the state, which is taken over, once.
- "TFLOP" are those of matrix products and convolutions, in loops and kernels too (`benchmarks.matrix_flops`);
  "recomputed" is the share that rematerialization adds to the same step without it.
- "GB accessed" is XLA's count as in `benchmarks.tpu_compile`: one pass through a loop's body, however often it runs.
- "GB in collectives" counts those in loops as often as they run (`benchmarks.collectives`).

`--count` compiles nothing and gives the FLOPs alone.
"""

import argparse
import dataclasses
import itertools
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.collectives import collective_bytes
from benchmarks.matrix_flops import matrix_flops
from benchmarks.tpu_cost import GIGA, TERA, tpu_devices
from interlcm_jax.files.atomic import whole_file
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.models import lpips
from interlcm_jax.models.discriminator import DiscriminatorConfig, PatchDiscriminator
from interlcm_jax.models.weights import abstract
from interlcm_jax.training.config import REMAT, MeshConfig, StartConfig, TrainConfig
from interlcm_jax.training.sharding import DATA, FSDP, batch_sharding, make_mesh, weight_shardings
from interlcm_jax.training.start import abstract_networks
from interlcm_jax.training.state import abstract_state, split_weights, state_shardings
from interlcm_jax.training.step import make_step

GIBI = 2**30


@dataclasses.dataclass(frozen=True)
class StepCost:
    """What one step takes on one chip; None where nothing was compiled, or it doesn't fit.

    Attributes:
        gib: memory, GiB (2**30 bytes).
        temporaries: of it, what is neither argument nor result, GiB.
        tflop: floating-point operations of matrix products and convolutions, 1e12.
        recomputed: the share of them that rematerialization adds.
        accessed: bytes read and written, GB (1e9), loops' bodies once.
        collectives: GB of each kind of collective.
        seconds: tracing, lowering and compiling.
        problem: why there is no program.
    """

    gib: float | None = None
    temporaries: float | None = None
    tflop: float | None = None
    recomputed: float | None = None
    accessed: float | None = None
    collectives: dict[str, float] = dataclasses.field(default_factory=dict)
    seconds: float | None = None
    problem: str | None = None


@dataclasses.dataclass(frozen=True)
class Step:
    """A training step: the function, its arguments as shapes on devices, and where its results lie."""

    function: Any
    arguments: tuple[Any, ...]
    mesh: Mesh
    results: Any

    def traced(self) -> Any:
        """The step traced for its mesh, with the state taken over."""
        # The flash kernel learns from the mesh in context how the batch is split.
        with jax.set_mesh(self.mesh):
            return jax.jit(self.function, donate_argnums=0, out_shardings=self.results).trace(*self.arguments)


def training_step(config: TrainConfig, model: ModelConfig, devices: list[jax.Device]) -> Step:
    """The step of a run on these devices, which need not be there; all weights are shapes."""
    mesh = make_mesh(config.mesh, devices)
    networks = abstract_networks(config, model)
    judge = abstract(lambda rngs: PatchDiscriminator(config.discriminator, rngs=rngs, dtype=jnp.dtype(config.dtype)))
    state = abstract_state(networks, judge, config.optimizer, mesh)
    everywhere = NamedSharding(mesh, PartitionSpec())
    frozen = split_weights(networks)[1]
    frozen = {path: frozen[path].update(sharding=place) for path, place in weight_shardings(frozen, mesh).items()}
    perceptual = {path: spec.update(sharding=everywhere) for path, spec in lpips.skeleton().items()}
    shape = (config.batch_size, model.image_size, model.image_size, 3)
    images = jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=batch_sharding(mesh))
    arguments = (state, frozen, traverse_util.unflatten_dict(perceptual, sep="."), {"lq": images, "hq": images})
    step = make_step(config, model, networks, judge)
    return Step(step, arguments, mesh, (state_shardings(state, mesh), everywhere))


def count(config: TrainConfig, model: ModelConfig, devices: list[jax.Device]) -> StepCost:
    """The step's FLOPs, and the share of them that is recomputed."""
    plain = dataclasses.replace(config, remat="none")
    ours, least = (
        matrix_flops(training_step(each, model, devices).traced().jaxpr.jaxpr) / len(devices)
        for each in (config, plain)
    )
    return StepCost(tflop=ours / TERA, recomputed=ours / least - 1)


def compiled(step: Step, effort: float = 0.0) -> tuple[StepCost, str]:
    """The step's cost but for its FLOPs, and its optimized HLO; a problem instead where it doesn't fit the chip.

    Args:
        step: what is compiled.
        effort: of the compiler for the step's speed, from -1 to 1; 0 is its default.
    """
    start = time.perf_counter()
    options = {"exec_time_optimization_effort": effort} if effort else {}
    try:
        executable = step.traced().lower().compile(options)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return StepCost(seconds=time.perf_counter() - start, problem=_too_much(str(error))), str(error)
    seconds = time.perf_counter() - start
    memory, hlo = executable.memory_analysis(), executable.as_text()
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    cost = StepCost(
        gib=(memory.argument_size_in_bytes + memory.temp_size_in_bytes + results) / GIBI,
        temporaries=memory.temp_size_in_bytes / GIBI,
        accessed=executable.cost_analysis()["bytes accessed"] / GIGA,
        collectives={kind: number / GIGA for kind, number in collective_bytes(hlo).items()},
        seconds=seconds,
    )
    return cost, hlo


def _too_much(message: str) -> str:
    used = re.search(r"Used [\d.]+\w of [\d.]+\w \w+", message)
    return used[0] if used else "out of memory"


def row(topology: str, mesh: Mesh, config: TrainConfig, cost: StepCost) -> str:
    """A step's row of the table."""
    images = config.batch_size // mesh.size
    numbers = {
        "gib": "{:.2f}",
        "temporaries": "{:.2f}",
        "tflop": "{:.2f}",
        "recomputed": "{:.0%}",
        "accessed": "{:.1f}",
    }
    cells = ["" if getattr(cost, n) is None else form.format(getattr(cost, n)) for n, form in numbers.items()]
    sent = ", ".join(f"{kind} {number:.3g}" for kind, number in sorted(cost.collectives.items()))
    shape = f"{mesh.shape[DATA]}x{mesh.shape[FSDP]}"
    seconds = "" if cost.seconds is None else f"{cost.seconds:.0f}"
    first = [topology, str(mesh.size), shape, config.remat, f"{images}/{config.accumulate}"]
    return f"| {' | '.join([*first, *cells, cost.problem or sent, seconds])} |"


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topology", nargs="+", default=["v5e:4x4"], help="default: v5e:4x4")
    parser.add_argument("--fsdp", nargs="+", type=int, default=[1], help="chips that share the weights; default: 1")
    parser.add_argument("--images-per-chip", nargs="+", type=int, default=[1], help="default: 1")
    parser.add_argument("--remat", nargs="+", choices=REMAT, default=["blocks"], help="default: blocks")
    parser.add_argument("--accumulate", type=int, default=1, help="parts of a batch; default: 1")
    parser.add_argument("--effort", type=float, default=0.0, help="the compiler's, from -1 to 1; default: 0")
    parser.add_argument("--count", action="store_true", help="only count FLOPs, compile nothing")
    parser.add_argument("--miniature", action="store_true", help="networks of a few channels, to try the script")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here too")
    parser.add_argument("--hlo", type=Path, metavar="DIR", help="write each step's optimized HLO here")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Compiles what was asked for, one after the other, and prints the table as it grows."""
    options = parse(argv)
    jax.config.update("jax_platforms", "cpu")
    size = "miniature" if options.miniature else "released"
    model = getattr(ModelConfig, size)()
    print(
        "| TPU | chips | data x fsdp | remat | images/parts | GiB | of it temporaries | TFLOP | recomputed | ", end=""
    )
    print(
        "GB accessed | GB in collectives | compile, s |\n|---|---|---|---|---|---|---|---|---|---|---|---|", flush=True
    )
    results = []
    settings = itertools.product(options.topology, options.fsdp, options.images_per_chip, options.remat)
    for topology, fsdp, images, remat in settings:
        devices = tpu_devices(topology)
        config = TrainConfig(
            start=StartConfig(random=size),
            discriminator=DiscriminatorConfig.miniature() if options.miniature else DiscriminatorConfig(),
            mesh=MeshConfig(fsdp=fsdp),
            batch_size=images * len(devices),
            accumulate=options.accumulate,
            remat=remat,
        )
        config.check()
        step = training_step(config, model, devices)
        counted = count(config, model, devices)
        cost, hlo = (StepCost(), "") if options.count else compiled(step, options.effort)
        cost = dataclasses.replace(cost, tflop=counted.tflop, recomputed=counted.recomputed)
        print(row(topology, step.mesh, config, cost), flush=True)
        key = {"topology": topology, "chips": len(devices), "fsdp": fsdp, "images_per_chip": images, "remat": remat}
        results.append({**key, **dataclasses.asdict(cost)})
        if options.hlo and hlo:
            options.hlo.mkdir(parents=True, exist_ok=True)
            (options.hlo / f"{topology.replace(':', '-')}-{fsdp}-{images}-{remat}.txt").write_text(hlo)
        if options.json:
            with whole_file(options.json) as temporary:
                temporary.write_text(json.dumps({"size": size, "accumulate": options.accumulate, "steps": results}))


if __name__ == "__main__":
    sys.exit(main())
