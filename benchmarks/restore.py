"""Restoration on this machine's CPU: this package and PyTorch (diffusers' classes) in turns, same weights, same face.

    python -m benchmarks.restore --size full [--dtype bfloat16] [--cores 2] [--repeats 3] [--folder DIR] [-o FILE]

prints for each side the seconds of a batch (median of the turns), our share of PyTorch's, the peak memory of its
process, and the seconds from its start to the first batch; then the largest difference between the two restorations.
The first row is a process of ours that starts with an empty compile cache, the second one finds its programs there.

Weights are random, made in --folder once (11 GB at full size) and used again from there. Both sides together hold
15 GB at full size in float32. Needs the `parity` extra.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.report import Report, add_output
from benchmarks.turns import COLUMNS, OURS, THEIRS, Worker, serve, take_turns

COLD = f"{OURS}, nothing compiled yet"


def measure(arguments: argparse.Namespace, folder: Path) -> None:
    """Cold, then warm and PyTorch in turns."""
    report = Report(COLUMNS, arguments.output)
    prepare(arguments.size, arguments.batch_size, folder)
    settings = {name: getattr(arguments, name) for name in ("size", "dtype", "cores", "batch_size", "channels_last")}
    with tempfile.TemporaryDirectory(prefix="interlcm-benchmark-") as cache:

        def start(side: str) -> Worker:
            command = ["-m", "benchmarks.restore", *sys.argv[1:], "--folder", str(folder), "--worker", side]
            return Worker(command, {"INTERLCM_CACHE": cache})

        report.add({"side": COLD, **start(OURS).end(), **settings})
        for row in take_turns({side: start(side) for side in (OURS, THEIRS)}, arguments.repeats):
            report.add(row | settings)
    ours, theirs = (eight_bit(np.load(folder / f"{side}.npy")) for side in (OURS, THEIRS))
    print(f"largest difference: {np.abs(ours - theirs).max()} of 255 levels")


def eight_bit(images: np.ndarray) -> np.ndarray:
    """Levels of images in [-1, 1]."""
    return np.round((np.clip(images, -1, 1) + 1) * 127.5).astype(int)


def prepare(size: str, batch: int, folder: Path) -> None:
    """Random weights in the release's files, the model folder converted from them, a smooth picture, and noise."""
    config = model_config(size)
    if not (folder / "model").exists():
        # In a process of its own, so that its memory is given back.
        program = "import sys; from pathlib import Path; from benchmarks.restore import save_release; "
        program += "save_release(sys.argv[1], Path(sys.argv[2]))"
        release = folder / "release"
        subprocess.run([sys.executable, "-c", program, size, str(release)], check=True)
        sources = [f"--lcm={release / 'lcm'}", f"--clip={release / 'clip'}"]
        sources += [f"--{name}-encoder={release / f'{name}_encoder.pth'}" for name in ("visual", "spatial")]
        convert = [sys.executable, "-m", "interlcm_jax.cli.main", "convert", *sources, "-o", str(folder / "model")]
        subprocess.run(convert, check=True, stdout=sys.stderr)
    rng = np.random.default_rng(0)
    size = config.image_size
    ramp, speed = np.linspace(0, 1, size), rng.uniform(0, 12, (2, batch, 1, 1, 3))
    pictures = np.sin(speed[0] * ramp[:, None, None] + speed[1] * ramp[:, None])
    np.save(folder / "lq.npy", pictures.astype(np.float32))
    shape = (config.num_network_calls, batch, *config.latent_shape((batch, size, size, 3)))
    np.save(folder / "noise.npy", rng.standard_normal(shape, np.float32))


def model_config(size: str):
    """The released model's sizes, or the miniature's."""
    from interlcm_jax.model_folder import ModelConfig

    return ModelConfig.released() if size == "full" else ModelConfig.miniature()


def save_release(size: str, folder: Path) -> None:
    """Random weights in the files of the release."""
    from tests.parity.release import Release

    folder.mkdir(parents=True, exist_ok=True)
    Release.random(model_config(size)).save(folder)


def ours(arguments: argparse.Namespace) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """This package's restoration."""
    import jax

    from interlcm_jax import InterLCM
    from interlcm_jax.runtime import compile_cache

    compile_cache.enable()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    model = InterLCM.from_pretrained(arguments.folder / "model", dtype=arguments.dtype)
    return lambda lq, noise: np.asarray(model.restore(lq, noise))


def theirs(arguments: argparse.Namespace) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """PyTorch's restoration."""
    import torch

    from tests.parity.release import Release

    torch.set_num_threads(arguments.cores)
    dtype = getattr(torch, arguments.dtype)
    layout = torch.channels_last if arguments.channels_last else torch.contiguous_format
    model = Release.load(model_config(arguments.size), arguments.folder / "release", dtype, layout)

    def restore(lq: np.ndarray, noise: np.ndarray) -> np.ndarray:
        images, draws = torch.from_numpy(lq).permute(0, 3, 1, 2), torch.from_numpy(noise).permute(0, 1, 4, 2, 3)
        return model.restore(images.to(dtype), draws.to(dtype)).float().permute(0, 2, 3, 1).numpy()

    return restore


def work(arguments: argparse.Namespace) -> None:
    """A worker's life."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    misses = count_misses() if arguments.worker == OURS else []
    restore = {OURS: ours, THEIRS: theirs}[arguments.worker](arguments)
    lq, noise = (np.load(arguments.folder / name) for name in ("lq.npy", "noise.npy"))
    file = arguments.folder / f"{arguments.worker}.npy"
    serve(lambda: np.save(file, restore(lq, noise)), compiled=lambda: len(misses))


def count_misses() -> list[str]:
    """A list that grows by one with each program that the compile cache doesn't hold."""
    import jax

    misses: list[str] = []
    miss = "/jax/compilation_cache/cache_misses"
    jax.monitoring.register_event_listener(lambda event, **_: misses.append(event) if event == miss else None)
    return misses


def main() -> None:
    """Prints the table and the difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("miniature", "full"), default="miniature")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of both sides")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="that each side may use (default: all)")
    parser.add_argument("--batch-size", type=int, default=1, help="faces at a time")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each side (default: 3)")
    parser.add_argument("--channels-last", action="store_true", help="PyTorch's networks in that memory format")
    parser.add_argument("--folder", type=Path, help="where the weights are made, or were (default: a temporary one)")
    parser.add_argument("--worker", choices=(OURS, THEIRS), help=argparse.SUPPRESS)
    add_output(parser)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments)
        return
    with tempfile.TemporaryDirectory(prefix="interlcm-benchmark-") as temporary:
        measure(arguments, arguments.folder or Path(temporary))


if __name__ == "__main__":
    main()
