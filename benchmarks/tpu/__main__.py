"""What the TPU compiler says of the restoration and of a training step, for TPUs that aren't there.

    python -m benchmarks.tpu restore --program restore unet --batch-size 1 8 --topology v5e:2x2
    python -m benchmarks.tpu train --topology v5e:4x4 v5p:2x2x4 --remat blocks calls --effort -1

needs the TPU compiler (`pip install 'jax[tpu]'`), which runs on any Linux machine. In bfloat16 `restore` takes 5 to 20
minutes a program; `train`, the step of the released recipe (three network calls at 512x512, all losses, Adam, moving
average), half an hour of a core and 15 GB, or ten minutes and 9 GB with `--effort -1`. The compiler then puts nothing
into the fast memory on the chip: "accessed" lacks the copies into it. `--count` compiles nothing.

All numbers are for one chip, GB are 1e9 bytes, GiB 2**30:

- memory: arguments, results and temporaries, counting once what is taken over; "temporaries" alone beside it.
- tflop: of matrix products and convolutions, in loops and kernels too; "recomputed" is the share that
  rematerialization adds.
- hbm: through the chip's main memory, which bounds the speed (`benchmarks/tpu/hlo.py`); blank with loops.
- accessed: XLA's count of what every operation reads and writes, padded, wherever it lies: copies into the fast memory
  count too. One pass through a loop's body, so `restore` unrolls the network calls; `--scan` compiles them as
  `InterLCM.restore` does, for its temporaries and compile time. `--vae-slice` makes loops too.
- collectives: what is sent between chips, in loops as often as they run; "between slices" over the hosts' network.
- megacycles: the compiler's own estimates of all operations, added up, without waits for copies and bodies of loops.
"""

import argparse
import itertools
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from benchmarks.programs import REMAT, RESTORATION, SIZES, Program, Setting, model_config, train_config, training_step
from benchmarks.report import Report, add_output
from benchmarks.tpu.hlo import collective_bytes, hbm_bytes, megacycles
from interlcm_jax.models.kernels.attention import flash_kernel
from interlcm_jax.training.config import MeshConfig
from interlcm_jax.training.flops import matrix_flops

GIGA, TERA, GIBI = 1e9, 1e12, 2**30
RESTORE = {"topology": "", "program": "", "batch": ""}
TRAIN = {"topology": "", "chips": "", "fsdp": "", "remat": "", "images_per_chip": "", "recomputed": ".0%"}
COST = {
    "tflop": ".4g",
    "hbm_gb": ".4g",
    "accessed_gb": ".4g",
    "memory_gib": ".4g",
    "temporaries_gib": ".4g",
    "collectives_gb": ".3g",
    "megacycles": ".4g",
    "compile_seconds": ".0f",
    "problem": "",
}


def tpu_devices(topology: str, slices: int = 1) -> list[jax.Device]:
    """The chips of a TPU that isn't there, such as `v5e:2x2`, `v5p:2x2x1` or `v6e:2x2`, or of several like it."""
    # Without this the TPU library asks the cloud's metadata server which machine it runs on, and waits for an answer.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    # No TPU is taken, so another process may have the library open too.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    options = {"num_slices": slices} if slices > 1 else {}
    return list(topologies.get_topology_desc(platform="tpu", topology_name=topology, **options).devices)


def compiled(program: Program, options: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """A program's columns of `COST` but for its FLOPs, and its optimized HLO.

    Where it doesn't fit the chip, the column "problem" says so, and the text is the compiler's message.
    """
    start = time.perf_counter()
    try:
        executable = program.traced().lower().compile(dict(options))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        used = re.search(r"Used [\d.]+\w of [\d.]+\w \w+", str(error))
        problem = used[0] if used else "out of memory"
        return {"problem": problem, "compile_seconds": time.perf_counter() - start}, str(error)
    seconds = time.perf_counter() - start
    memory, hlo = executable.memory_analysis(), executable.as_text()
    results, hbm = memory.output_size_in_bytes - memory.alias_size_in_bytes, hbm_bytes(hlo)
    cost = {
        "hbm_gb": None if hbm is None else hbm / GIGA,
        "accessed_gb": executable.cost_analysis()["bytes accessed"] / GIGA,
        "memory_gib": (memory.argument_size_in_bytes + memory.temp_size_in_bytes + results) / GIBI,
        "temporaries_gib": memory.temp_size_in_bytes / GIBI,
        "collectives_gb": {kind: number / GIGA for kind, number in collective_bytes(hlo).items()},
        "megacycles": megacycles(hlo),
        "compile_seconds": seconds,
    }
    return cost, hlo


def tflop(program: Program, chips: int = 1) -> float:
    """The 1e12 floating-point operations that a chip spends on a program's matrix products and convolutions."""
    return matrix_flops(program.traced().jaxpr.jaxpr) / TERA / chips


def restorations(asked: argparse.Namespace) -> Iterator[tuple[dict[str, Any], Program]]:
    """The programs of `restore`, each with the first columns of its row."""
    config, dtype = model_config(asked.size), jnp.dtype(asked.dtype)
    for topology, name, batch in itertools.product(asked.topology, asked.program, asked.batch_size):
        chip = SingleDeviceSharding(tpu_devices(topology)[0])
        program = RESTORATION[name](Setting(config, batch, dtype, chip, not asked.scan, asked.vae_slice))
        yield {"topology": topology, "program": name, "batch": batch, "tflop": tflop(program)}, program


def steps(asked: argparse.Namespace) -> Iterator[tuple[dict[str, Any], Program]]:
    """The programs of `train`, each with the first columns of its row."""
    model = model_config(asked.size)
    settings = itertools.product(asked.topology, asked.fsdp, asked.images_per_chip, asked.remat)
    for topology, fsdp, images, remat in settings:
        devices = tpu_devices(topology, asked.slices)
        chips = len(devices)
        options = {"batch_size": images * chips, "accumulate": asked.accumulate, "dtype": asked.dtype}
        options["mesh"] = MeshConfig(fsdp=fsdp)
        program, plain = (
            training_step(train_config(asked.size, remat=each, **options), model, devices) for each in (remat, "none")
        )
        topology = f"{asked.slices} * {topology}" if asked.slices > 1 else topology
        row = {"topology": topology, "chips": chips, "fsdp": fsdp, "remat": remat, "images_per_chip": images}
        ours, least = tflop(program, chips), tflop(plain, chips)
        yield {**row, "tflop": ours, "recomputed": ours / least - 1}, program


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    both = argparse.ArgumentParser(add_help=False)
    both.add_argument("--topology", nargs="+", default=["v5e:2x2"], help="default: v5e:2x2")
    both.add_argument("--size", choices=SIZES, default="full", help="default: full")
    both.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="default: bfloat16")
    both.add_argument("--count", action="store_true", help="only count FLOPs, compile nothing")
    both.add_argument("--effort", type=float, help="the compiler's for speed, from -1 to 1; default: its own, 0")
    both.add_argument("--option", nargs="+", default=[], metavar="NAME=VALUE", help="options for the compiler")
    both.add_argument("--hlo", type=Path, metavar="DIR", help="write each program's optimized HLO here")
    add_output(both)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(dest="what", required=True)
    restore = what.add_parser("restore", parents=[both], help="programs of the restoration")
    restore.add_argument("--program", nargs="+", choices=RESTORATION, default=["restore", "unet"])
    restore.add_argument("--batch-size", nargs="+", type=int, default=[1, 8], help="default: 1 8")
    restore.add_argument(
        "--scan", action="store_true", help="the network calls as a loop, as InterLCM.restore has them"
    )
    restore.add_argument("--vae-slice", type=int, metavar="N", help="images in the VAE at a time; default: all")
    train = what.add_parser("train", parents=[both], help="a training step")
    train.add_argument("--slices", type=int, default=1, help="that many of the topology; default: 1")
    train.add_argument("--fsdp", nargs="+", type=int, default=[1], help="chips that share the weights; default: 1")
    train.add_argument("--images-per-chip", nargs="+", type=int, default=[1], help="default: 1")
    train.add_argument("--remat", nargs="+", choices=REMAT, default=["blocks"], help="default: blocks")
    train.add_argument("--accumulate", type=int, default=1, help="parts of a batch; default: 1")
    asked = parser.parse_args(argv)
    if wrong := [each for each in asked.option if "=" not in each]:
        parser.error(f"--option {wrong[0]} isn't NAME=VALUE")
    return asked


def main(argv: list[str] | None = None) -> None:
    """Compiles what was asked for, one program after the other, and prints the table as it grows."""
    asked = parse(argv)
    jax.config.update("jax_platforms", "cpu")
    options = dict(each.split("=", 1) for each in asked.option)
    if asked.effort is not None:
        options["exec_time_optimization_effort"] = asked.effort
    first, programs = (RESTORE, restorations) if asked.what == "restore" else (TRAIN, steps)
    report = Report(first | COST, asked.output)
    with flash_kernel(True):
        for number, (row, program) in enumerate(programs(asked)):
            cost, hlo = ({}, None) if asked.count else compiled(program, options)
            if asked.hlo and hlo:
                asked.hlo.mkdir(parents=True, exist_ok=True)
                (asked.hlo / f"{number:02}-{asked.what}.txt").write_text(hlo)
            report.add({**row, **cost, "options": options})


if __name__ == "__main__":
    main()
