"""How many images a second one core degrades by the release's recipe: python -m benchmarks.degradation FACES."""

import argparse
import time
from pathlib import Path

import cv2
import numpy as np

from interlcm_jax.data.degradation import DegradationConfig, degrade, draw, gaussian_kernel
from interlcm_jax.data.randomness import rng_for
from interlcm_jax.data.sources import open_source


def main() -> None:
    """Degrades faces again and again; prints the rate beside that of all blurs by `cv2.filter2D`, decoding apart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces", type=Path, metavar="FACES", help="a folder of faces")
    parser.add_argument("--size", type=int, default=512, help="width and height, pixels (default: 512)")
    parser.add_argument("--count", type=int, default=400, help="images degraded (default: 400)")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    source = open_source(arguments.faces, arguments.size)
    images = [source[index]["hq"] for index in range(min(len(source), 20))]
    config = DegradationConfig.release()
    ours = blurring = 0.0
    for index in range(arguments.count):
        image, start = images[index % len(images)], time.process_time()
        draws = draw(config, rng_for(0, "degradation", index, 0))
        degrade(image, draws)
        ours += time.process_time() - start
        blind = draws.blind
        kernel = gaussian_kernel(blind.kernel_size, blind.sigma_x, blind.sigma_y, blind.rotation)
        floats, start = image.astype(np.float32), time.process_time()
        cv2.filter2D(floats, -1, kernel)
        blurring += time.process_time() - start
    rates = arguments.count / ours, arguments.count / blurring
    print("{:.1f} images a second of one core; cv2.filter2D alone on the same images {:.1f}".format(*rates))


if __name__ == "__main__":
    main()
