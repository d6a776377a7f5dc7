"""How many training images a second this machine's CPU makes: one core's degradation, and the whole loader.

    python -m benchmarks.data FACES [--size 512] [--count 400] [--workers 1 2 4 8] [-o FILE]

FACES is a folder of face images or a dataset that `interlcm dataset` built. "degradation" is the release's recipe on
images in memory, in seconds of one core; "blur alone" is its blur by `cv2.filter2D` on the same images, for scale;
"loader" is reading, flipping and degrading as `train.py` does it, in seconds of the clock, by the number of workers.
"""

import argparse
import time
from collections.abc import Iterator

import cv2
import numpy as np

from benchmarks.report import Report, add_output
from interlcm_jax.data.degradation import DegradationConfig, degrade, draw, gaussian_kernel
from interlcm_jax.data.loader import DataConfig, batches
from interlcm_jax.data.randomness import rng_for
from interlcm_jax.data.sources import HQ, Source, open_source


def degradation(source: Source, count: int) -> Iterator[tuple[str, float]]:
    """Images a second of one core: the whole degradation, and the blur of it by `cv2.filter2D`."""
    cv2.setNumThreads(1)
    images = [source[index][HQ] for index in range(min(len(source), 20))]
    config = DegradationConfig.release()
    seconds = dict.fromkeys(("degradation", "blur alone"), 0.0)
    for index in range(count):
        image, start = images[index % len(images)], time.process_time()
        draws = draw(config, rng_for(0, "degradation", index, 0))
        degrade(image, draws)
        seconds["degradation"] += time.process_time() - start
        blind = draws.blind
        kernel = gaussian_kernel(blind.kernel_size, blind.sigma_x, blind.sigma_y, blind.rotation)
        floats, start = image.astype(np.float32), time.process_time()
        cv2.filter2D(floats, -1, kernel)
        seconds["blur alone"] += time.process_time() - start
    yield from ((name, count / spent) for name, spent in seconds.items())


def loader(source: Source, size: int, count: int, batch_size: int, workers: int) -> float:
    """Images a second, after the first batch."""
    config = DataConfig(image_size=size, degradation=DegradationConfig.release(), workers=workers)
    images = batches(source, config, seed=0, batch_size=batch_size)
    next(images)
    start, rounds = time.perf_counter(), -(-count // batch_size)
    for _ in range(rounds):
        next(images)
    rate = rounds * batch_size / (time.perf_counter() - start)
    images.close()
    return rate


def main(argv: list[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", metavar="FACES", help="a folder of faces, or a dataset")
    parser.add_argument("--size", type=int, default=512, help="width and height, pixels (default: 512)")
    parser.add_argument("--count", type=int, default=400, help="images of each row (default: 400)")
    parser.add_argument("--batch-size", type=int, default=16, help="of the loader (default: 16)")
    parser.add_argument("--workers", nargs="*", type=int, default=[1, 2, 4, 8], help="of the loader (default: 1 2 4 8)")
    add_output(parser)
    asked = parser.parse_args(argv)
    source = open_source(asked.faces, asked.size)
    report = Report({"what": "", "images_per_second": ".1f"}, asked.output)
    for what, rate in degradation(source, asked.count):
        report.add({"what": what, "images_per_second": rate, "size": asked.size})
    for workers in asked.workers:
        rate = loader(source, asked.size, asked.count, asked.batch_size, workers)
        report.add({"what": f"loader, {workers} workers", "images_per_second": rate, "size": asked.size})


if __name__ == "__main__":
    main()
