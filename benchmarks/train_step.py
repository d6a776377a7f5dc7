"""A training step at miniature size on this machine: seconds, memory and compile time, beside the same step in PyTorch.

    python -m benchmarks.train_step [--batch-size 8] [--repeats 10] [--remat none blocks calls] [--json FILE]

Each row is a process of its own, so that its peak memory (by the system, everything loaded included) is its own; the
ratio is to PyTorch's row of the same call. All losses are on, LPIPS with a VGG of random weights. Needs the `parity`
extra.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.restore import peak_bytes

PYTORCH = "PyTorch"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=10, help="steps that are timed (default: 10)")
    parser.add_argument("--remat", nargs="+", choices=("none", "blocks", "calls"), default=["none", "blocks", "calls"])
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(measure(options.worker, options.batch_size, options.repeats)))
        return
    print("| step | seconds | of PyTorch's | peak memory, GB | first step, s |\n|---|---|---|---|---|", flush=True)
    rows, theirs = [], None
    for worker in (PYTORCH, *options.remat):
        command = [sys.executable, "-m", "benchmarks.train_step", "--worker", worker]
        command += ["--batch-size", str(options.batch_size), "--repeats", str(options.repeats)]
        row = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
        theirs = theirs or row["seconds"]
        name = worker if worker == PYTORCH else f"interlcm_jax, remat {worker}"
        figures = f"{row['seconds']:.2f} | {row['seconds'] / theirs:.2f} | {row['peak'] / 1e9:.2f} | {row['first']:.1f}"
        print(f"| {name} | {figures} |", flush=True)
        rows.append({"step": name, **row})
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def measure(worker: str, batch_size: int, repeats: int) -> dict[str, float]:
    """Seconds of the first step and the median of the others; the process's peak memory in bytes."""
    rng = np.random.default_rng(0)
    batch = {name: rng.integers(0, 256, (batch_size, 64, 64, 3), np.uint8) for name in ("lq", "hq")}
    step = theirs() if worker == PYTORCH else ours(worker, batch_size)
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        step(batch)
        seconds.append(time.perf_counter() - start)
    return {"first": seconds[0], "seconds": statistics.median(seconds[1:]), "peak": peak_bytes()}


def ours(remat: str, batch_size: int) -> Callable[[dict[str, np.ndarray]], None]:
    """This package's step, as `train.py` compiles it."""
    import jax

    from interlcm_jax.models.discriminator import DiscriminatorConfig
    from interlcm_jax.models.lpips import random_params
    from interlcm_jax.training.config import LossConfig, MeshConfig, StartConfig, TrainConfig
    from interlcm_jax.training.sharding import make_mesh, put_batch
    from interlcm_jax.training.start import load_start
    from interlcm_jax.training.state import split_weights
    from train import compile_step, new_state

    config = TrainConfig(
        start=StartConfig(random="miniature"),
        losses=LossConfig(adversarial_from=0, lpips_weights="random"),
        discriminator=DiscriminatorConfig.miniature(),
        batch_size=batch_size,
        dtype="float32",
        remat=remat,
    )
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    start = load_start(config, mesh)
    state = new_state(config, start, mesh)
    frozen, perceptual = split_weights(start.networks)[1], random_params(0)
    program = compile_step(config, start, state, mesh)

    def step(batch: dict[str, np.ndarray]) -> None:
        nonlocal state
        state, metrics = program(state, frozen, perceptual, put_batch(batch, mesh))
        jax.block_until_ready((state, metrics))

    return step


def theirs() -> Callable[[dict[str, np.ndarray]], None]:
    """The same step in PyTorch."""
    import torch

    from tests.parity.training_twin import MODEL, make_twin

    twin = make_twin()

    def step(batch: dict[str, np.ndarray]) -> None:
        lq, hq = (torch.from_numpy(batch[n]).permute(0, 3, 1, 2).float() / 127.5 - 1 for n in ("lq", "hq"))
        shape = (MODEL.num_network_calls, len(lq), 4, lq.shape[2] // 8, lq.shape[3] // 8)
        twin.optimize(0, twin.release.generate(lq, torch.randn(shape)), hq)

    return step


if __name__ == "__main__":
    main()
