"""Speed and memory of the restoration, its parts and a training step on this machine's GPU or TPU.

    python -u -m benchmarks.accelerator [--size full] [--dtype float32 bfloat16] [--minutes 60] -o OUT.json

needs nothing but the package with JAX for the device: weights are random. It prints a row for each program, dtype and
batch size, and writes it at once as a line of OUT.json, so a run that is stopped keeps what it has; after `--minutes`
it ends by itself. Each row comes from a process of its own, whose peak memory on the device (on a CPU: of the process)
is its own. One device is used. At full size 80 GB of memory hold every row; those that don't fit say so.

- "restore" is everything from the LQ images to the restored ones but for the color fix, "unet" one call of it, "encode"
  and "decode" the VAE's halves, "train" the step of the release's recipe with `--remat blocks`.
- "attention" is that among all latents as the package picks it for the device (cuDNN's kernel on GPUs in half
  precision, Pallas' on TPUs); "attention-plain" and "attention-chunked" are what it can do without.
- "speedup" is by images a second over the first row of the same program in this run, here of all attentions.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks.report import Report, add_output

PROGRAMS = ("restore", "train", "unet", "decode", "encode", "attention", "attention-plain", "attention-chunked")
COLUMNS = {
    "program": "",
    "dtype": "",
    "batch": "",
    "compile_seconds": ".1f",
    "seconds": ".4g",
    "images_per_second": ".4g",
    "speedup": ".2f",
    "peak_gb": ".2f",
    "problem": "",
}


def measure(size: str, name: str, dtype: str, batch: int, repeats: int) -> dict[str, Any]:
    """Compiles a program and runs it; returns its row but for the speedup.

    Args:
        size: of the networks.
        name: of `PROGRAMS`.
        dtype: of the computation.
        batch: images at a time.
        repeats: runs that are timed, after a first one.
    """
    # Not above: the process that starts the others must not hold the device.
    import jax

    device = jax.devices()[0]
    row = {"size": size, "program": name, "dtype": dtype, "batch": batch}
    row |= {"device": device.device_kind, "jax": jax.__version__}
    try:
        return row | _run(size, name, dtype, batch, repeats, device)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return row | {"problem": "out of memory"}


def _run(size: str, name: str, dtype: str, batch: int, repeats: int, device: Any) -> dict[str, Any]:
    import jax

    from benchmarks import programs
    from benchmarks.turns import peak_bytes
    from interlcm_jax.runtime.compiler_options import compiler_options

    model = programs.model_config(size)
    if name == "train":
        config = programs.train_config(size, batch_size=batch, dtype=dtype)
        program = programs.training_step(config, model, [device])
    else:
        setting = programs.Setting(model, batch, jax.numpy.dtype(dtype), jax.sharding.SingleDeviceSharding(device))
        program = (programs.RESTORATION | programs.ATTENTION)[name](setting)
    start = time.perf_counter()
    executable = program.traced().lower().compile(compiler_options(device.platform))
    compile_seconds = time.perf_counter() - start
    arguments, seconds = program.filled(), []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        result = jax.block_until_ready(executable(*arguments))
        seconds.append(time.perf_counter() - start)
        if program.donated:
            arguments = (result[0], *arguments[1:])
    median = statistics.median(seconds[1:])
    peak = (device.memory_stats() or {}).get("peak_bytes_in_use") or peak_bytes()
    row = {"compile_seconds": compile_seconds, "seconds": median, "images_per_second": batch / median}
    return row | {"peak_gb": peak / 1e9}


def measure_apart(argv: list[str], row: dict[str, Any], seconds: float) -> dict[str, Any]:
    """`measure` in a process of its own, which is ended after so many seconds."""
    chosen = ["--program", row["program"], "--dtype", row["dtype"], "--batch-size", str(row["batch"])]
    command = [sys.executable, "-m", "benchmarks.accelerator", *argv, *chosen, "--worker"]
    try:
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return row | {"problem": "out of time"}
    if run.returncode:
        return row | {"problem": f"exit code {run.returncode}, see the messages"}
    return json.loads(run.stdout.splitlines()[-1])


def main(argv: list[str] | None = None) -> None:
    """Measures what was asked for until it is done or the time is up."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("miniature", "small", "full"), default="full", help="default: full")
    parser.add_argument("--program", nargs="+", choices=PROGRAMS, default=PROGRAMS, help="default: all")
    parser.add_argument("--dtype", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--batch-size", nargs="+", type=int, default=[1, 4, 16], help="default: 1 4 16")
    parser.add_argument("--repeats", type=int, default=10, help="timed runs of a program (default: 10)")
    parser.add_argument("--minutes", type=float, default=60, help="for everything (default: 60)")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    add_output(parser)
    asked = parser.parse_args(argv)
    rows = itertools.product(asked.program, asked.batch_size, asked.dtype)
    if asked.worker:
        (name, batch, dtype), *_ = rows
        print(json.dumps(measure(asked.size, name, dtype, batch, asked.repeats)))
        return
    end = time.monotonic() + 60 * asked.minutes
    report, first = Report(COLUMNS, asked.output), {}
    for name, batch, dtype in rows:
        if (left := end - time.monotonic()) <= 0:
            break
        row = measure_apart(argv, {"program": name, "dtype": dtype, "batch": batch}, left)
        if speed := row.get("images_per_second"):
            row["speedup"] = speed / first.setdefault(name.split("-")[0], speed)
        report.add(row)


if __name__ == "__main__":
    main()
