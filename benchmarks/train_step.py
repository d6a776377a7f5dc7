"""A training step at miniature size on this machine's CPU: this package and PyTorch in turns.

    python -m benchmarks.train_step [--batch-size 8] [--remat none] [--repeats 10] [-o FILE]

prints for each side the seconds of a step (median of the turns), our share of PyTorch's, the peak memory of its
process (ours compiles, which takes most of it), and the seconds from its start to the end of its first step. All
losses are on, LPIPS with a VGG of random weights. Needs the `parity` extra.

    python -m benchmarks.train_step --overhead

prints the microseconds that the loop of `train.py` spends on a step besides it: the log, with a line every 50 steps,
and the agreement of several processes on whether to stop.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np

from benchmarks.report import Report, add_output
from benchmarks.turns import COLUMNS, OURS, THEIRS, Worker, serve, take_turns


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--remat", choices=("none", "blocks", "calls"), default="none", help="ours")
    parser.add_argument("--repeats", type=int, default=10, help="turns of each side (default: 10)")
    parser.add_argument("--worker", choices=(OURS, THEIRS), help=argparse.SUPPRESS)
    parser.add_argument("--overhead", action="store_true", help="of the loop around the step")
    add_output(parser)
    arguments = parser.parse_args()
    if arguments.overhead:
        for what, seconds in overhead(steps=2000).items():
            print(f"{what}: {1e6 * seconds:.0f} microseconds a step")
        return
    if arguments.worker:
        images = np.random.default_rng(0).integers(0, 256, (2, arguments.batch_size, 64, 64, 3), np.uint8)
        batch = dict(zip(("lq", "hq"), images, strict=True))
        serve(theirs(batch) if arguments.worker == THEIRS else ours(batch, arguments.remat))
        return
    report = Report(COLUMNS, arguments.output)
    command = ["-m", "benchmarks.train_step", *sys.argv[1:], "--worker"]
    for row in take_turns({side: Worker([*command, side]) for side in (OURS, THEIRS)}, arguments.repeats):
        report.add({**row, "batch_size": arguments.batch_size, "remat": arguments.remat})


def ours(batch: dict[str, np.ndarray], remat: str) -> Callable[[], None]:
    """This package's step, as `train.py` compiles it."""
    import jax

    from benchmarks.programs import model_config, train_config, training_step
    from interlcm_jax.runtime.compiler_options import compiler_options
    from interlcm_jax.training.sharding import put_batch

    config = train_config("miniature", batch_size=len(batch["lq"]), dtype="float32", remat=remat)
    program = training_step(config, model_config("miniature"), jax.devices()[:1])
    executable = program.traced().lower().compile(compiler_options("cpu"))
    state, *weights, _ = program.filled()

    def step() -> None:
        nonlocal state
        state, metrics = executable(state, *weights, put_batch(batch, program.mesh))
        jax.block_until_ready((state, metrics))

    return step


def overhead(steps: int) -> dict[str, float]:
    """Seconds a step of all that goes on around it, where the device is always done already."""
    import jax

    from interlcm_jax.runtime.watchdog import Watchdog
    from interlcm_jax.training.interrupt import any_process
    from interlcm_jax.training.log import RunLog

    metrics = {name: jax.numpy.float32(1) for name in ("loss", *"abcdefghij")}
    jax.device_get(any_process(False))
    with tempfile.TemporaryDirectory() as folder, RunLog(folder, steps) as log, Watchdog("train", log.clock):
        began = time.perf_counter()
        for step in range(1, steps + 1):
            with log.clock.at("data"):
                pass
            log.add(step, metrics, np.zeros(1, np.int64))
        logged = time.perf_counter()
        before = any_process(False)
        for _ in range(steps):
            before, after = any_process(False), before
            bool(jax.device_get(after))
        agreed = time.perf_counter()
    return {"log": (logged - began) / steps, "agreement": (agreed - logged) / steps}


def theirs(batch: dict[str, np.ndarray]) -> Callable[[], None]:
    """The same step in PyTorch."""
    import torch

    from tests.parity.training_twin import MODEL, make_twin

    twin = make_twin()

    def step() -> None:
        lq, hq = (torch.from_numpy(batch[n]).permute(0, 3, 1, 2).float() / 127.5 - 1 for n in ("lq", "hq"))
        shape = (MODEL.num_network_calls, len(lq), 4, lq.shape[2] // 8, lq.shape[3] // 8)
        twin.optimize(0, twin.release.trace(lq, torch.randn(shape))["decoded"], hq)

    return step


if __name__ == "__main__":
    main()
