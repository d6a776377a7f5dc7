"""Restoration on this machine's CPU: this package and PyTorch (diffusers' classes) in turns, same weights, same face.

    python -m benchmarks.restore --size full [--dtype bfloat16] [--cores 2] [--repeats 3] [--folder DIR] [--json FILE]

Weights are random, made in --folder once (11 GB at full size) and used again from there. Each side lives in processes
of its own, which keep the model and restore when told to: first a cold one of ours, with an empty compile cache, which
restores one batch and ends; then a warm one of ours and PyTorch's in turns, one idle while the other works. Together
these two hold 15 GB at full size in float32. Memory is a process' peak by the system. Needs the `parity` extra.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

OURS, THEIRS = "interlcm_jax", "PyTorch"
GB = 1e9


@dataclasses.dataclass(frozen=True)
class Result:
    """What was measured; seconds and bytes.

    Attributes:
        seconds: medians of the turns of a batch, by side.
        peak: the most memory held, by side; ours by the warm process.
        peak_compiling: the most that our cold process held.
        first: start of a process to its first batch, by side; ours with programs from the cache.
        first_cold: ours with an empty cache.
        compiled_again: programs that our warm process compiled for want of them in the cache.
        levels: largest difference between the two restorations, of 255.
    """

    seconds: dict[str, float]
    peak: dict[str, int]
    peak_compiling: int
    first: dict[str, float]
    first_cold: float
    compiled_again: int
    levels: int

    @property
    def ratio(self) -> float:
        """Our time over PyTorch's."""
        return self.seconds[OURS] / self.seconds[THEIRS]

    def table(self) -> str:
        """The figures as Markdown."""
        rows = [
            ("seconds a batch", *self.seconds.values(), f"{self.ratio:.2f}"),
            ("peak memory, GB", *(b / GB for b in self.peak.values()), f"{self.peak[OURS] / self.peak[THEIRS]:.2f}"),
            ("peak memory when compiling, GB", self.peak_compiling / GB, None, ""),
            ("seconds from start to first batch", *self.first.values(), f"{self.first[OURS] / self.first[THEIRS]:.2f}"),
            ("the same, nothing compiled yet", self.first_cold, None, ""),
            ("programs compiled again", str(self.compiled_again), None, ""),
            ("largest difference, of 255 levels", str(self.levels), None, ""),
        ]
        lines = [f"| | {OURS} | {THEIRS} | ratio |", "|---|---|---|---|"]
        return "\n".join(lines + [f"| {name} | {cell(a)} | {cell(b)} | {ratio} |" for name, a, b, ratio in rows])


def cell(value: float | str | None) -> str:
    """A figure to two places; nothing for None."""
    return "" if value is None else value if isinstance(value, str) else f"{value:.2f}"


class Worker:
    """A process that restores when told to."""

    def __init__(self, side: str, arguments: argparse.Namespace, folder: Path, cache: Path):
        self.start, self.out = time.perf_counter(), folder / f"{side}.npy"
        options = ["--size", arguments.size, "--dtype", arguments.dtype, "--cores", str(arguments.cores)]
        options += ["--batch-size", str(arguments.batch_size), "--worker", side, "--folder", str(folder)]
        options += ["--channels-last"] * arguments.channels_last
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.restore", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "JAX_PLATFORMS": "cpu", "INTERLCM_CACHE": str(cache)},
        )
        self._tell("wait")
        self.restore()
        self.first = time.perf_counter() - self.start

    def restore(self) -> float:
        """Seconds of one batch."""
        return self._tell("restore")["seconds"]

    def end(self) -> dict[str, int]:
        """What the process has to say of itself at the end: bytes of memory, programs compiled."""
        told = self._tell("end")
        self.process.stdin.close()
        self.process.wait()
        return told

    def _tell(self, what: str) -> dict:
        print(what, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended with exit code {self.process.wait()}; its messages are above")
        return json.loads(line)


def measure(arguments: argparse.Namespace, folder: Path) -> Result:
    """Cold, then warm and PyTorch in turns."""
    prepare(arguments, folder)
    with tempfile.TemporaryDirectory(prefix="interlcm-benchmark-") as cache:
        cold = Worker(OURS, arguments, folder, Path(cache))
        compiling = cold.end()
        workers = {side: Worker(side, arguments, folder, Path(cache)) for side in (OURS, THEIRS)}
        turns: dict[str, list[float]] = {side: [] for side in workers}
        for turn in range(arguments.repeats):
            for side, worker in workers.items():
                turns[side].append(worker.restore())
                print(f"turn {turn + 1}: {side} {turns[side][-1]:.2f} s", file=sys.stderr)
        ends = {side: worker.end() for side, worker in workers.items()}
    ours, theirs = (eight_bit(np.load(worker.out)) for worker in workers.values())
    return Result(
        seconds={side: statistics.median(times) for side, times in turns.items()},
        peak={side: end["peak"] for side, end in ends.items()},
        peak_compiling=compiling["peak"],
        first={side: worker.first for side, worker in workers.items()},
        first_cold=cold.first,
        compiled_again=ends[OURS]["compiled"],
        levels=int(np.abs(ours - theirs).max()),
    )


def eight_bit(images: np.ndarray) -> np.ndarray:
    """Levels of images in [-1, 1]."""
    return np.round((np.clip(images, -1, 1) + 1) * 127.5).astype(int)


def prepare(arguments: argparse.Namespace, folder: Path) -> None:
    """Random weights in the release's files, the model folder converted from them, a smooth picture, and noise."""
    config = model_config(arguments.size)
    if not (folder / "model").exists():
        # In a process of its own, so that its memory is given back.
        program = "import sys; from pathlib import Path; from benchmarks.restore import save_release; "
        program += "save_release(sys.argv[1], Path(sys.argv[2]))"
        subprocess.run([sys.executable, "-c", program, arguments.size, str(folder / "release")], check=True)
        options = [f"--{name}={folder / 'release' / name}" for name in ("lcm", "clip")]
        for name in ("visual_encoder", "spatial_encoder"):
            options.append(f"--{name.replace('_', '-')}={folder / 'release' / name}.pth")
        convert = [sys.executable, "-m", "interlcm_jax.cli.main", "convert", *options, "-o", str(folder / "model")]
        subprocess.run(convert, check=True, stdout=sys.stderr)
    rng = np.random.default_rng(0)
    size, batch = config.image_size, arguments.batch_size
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
    """A worker's life: commands in by lines, answers out by lines of JSON."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    misses = count_misses() if arguments.worker == OURS else []
    restore = {OURS: ours, THEIRS: theirs}[arguments.worker](arguments)
    lq, noise = (np.load(arguments.folder / name) for name in ("lq.npy", "noise.npy"))
    for command in map(str.strip, sys.stdin):
        answer = {}
        if command == "restore":
            start = time.perf_counter()
            result = restore(lq, noise)
            answer = {"seconds": time.perf_counter() - start}
            np.save(arguments.folder / f"{arguments.worker}.npy", result)
        elif command == "end":
            answer = {"peak": peak_bytes(), "compiled": len(misses)}
        print(json.dumps(answer), flush=True)


def count_misses() -> list[str]:
    """A list that grows by one with each program that the compile cache doesn't hold."""
    import jax

    misses: list[str] = []
    miss = "/jax/compilation_cache/cache_misses"
    jax.monitoring.register_event_listener(lambda event, **_: misses.append(event) if event == miss else None)
    return misses


def peak_bytes() -> int:
    """The most memory this process has held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


def main() -> None:
    """Prints the table; with --json writes the figures too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("miniature", "full"), default="miniature")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of both sides")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="that each side may use (default: all)")
    parser.add_argument("--batch-size", type=int, default=1, help="faces at a time")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each side (default: 3)")
    parser.add_argument("--channels-last", action="store_true", help="PyTorch's networks in that memory format")
    parser.add_argument("--folder", type=Path, help="where the weights are made, or were (default: a temporary one)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures, with the settings")
    parser.add_argument("--worker", choices=(OURS, THEIRS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return work(arguments)
    with tempfile.TemporaryDirectory(prefix="interlcm-benchmark-") as temporary:
        result = measure(arguments, arguments.folder or Path(temporary))
    print(result.table())
    if arguments.json:
        settings = {name: value for name, value in vars(arguments).items() if name not in ("worker", "json", "folder")}
        figures = {**settings, **dataclasses.asdict(result), "ratio": result.ratio}
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return None


if __name__ == "__main__":
    main()
