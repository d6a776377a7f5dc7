"""DifFace's test degradations: a grid of blurs, scales, noises and qualities, each of which is used as often.

Yue and Loy, "DifFace" (arXiv 2212.06512), scripts/prepare_testing_restoration.py of its release.
"""

import dataclasses
import itertools
import math
import random
from collections.abc import Iterator

from interlcm_jax.data.degradation import Blind, Draws
from interlcm_jax.data.randomness import rng_for

SEED = 10000  # the release's


@dataclasses.dataclass(frozen=True)
class GridConfig:
    """The values of the grid; defaults are the release's 4,000 points.

    Attributes:
        kernel_size: side of the blur kernel, pixels, odd.
        blur_sigma: of the Gaussian blur, pixels; along one axis a point of the grid, along the other drawn.
        rotation: of the blur, radians.
        downsampling: how many times smaller the image gets.
        noise_sigma: in levels of 255.
        jpeg_quality: from 1 to 100.
    """

    kernel_size: int = 41
    blur_sigma: tuple[float, ...] = (4, 8, 12, 16)
    rotation: tuple[float, ...] = (0.0, math.pi / 4, math.pi / 2, 3 * math.pi / 4)
    downsampling: tuple[float, ...] = (4, 8, 12, 16, 20, 24, 28, 32, 36, 40)
    noise_sigma: tuple[float, ...] = (1, 5, 10, 15, 20)
    jpeg_quality: tuple[int, ...] = (30, 40, 50, 60, 70)

    def draws(self, seed: int, count: int) -> Iterator[Draws]:
        """The degradations of so many images in order of name, spread evenly over the grid.

        With 4,000 images, each has its point in the release's order, and with seed 10000 its second blur width too.
        The noise is ours: the release draws it in the order of the images, here it depends on (seed, image) alone.

        Args:
            seed: from 0 to 2³² - 1.
            count: of the images; more than there are points share them.

        Raises:
            InterLCMError: the seed is out of range.
        """
        points = list(
            itertools.product(self.jpeg_quality, self.downsampling, self.noise_sigma, self.blur_sigma, self.rotation)
        )
        # Python's own generator, whose choices the release takes one after the other.
        generator = random.Random(seed)
        second = [generator.choice(self.blur_sigma) for _ in points]
        for index in range(count):
            place = index * len(points) // count
            quality, scale, noise, sigma, rotation = points[place]
            noise_seed = int(rng_for(seed, "grid", index, 0).integers(2**63))
            yield Draws(Blind(self.kernel_size, sigma, second[place], rotation, scale, noise, noise_seed, quality))
