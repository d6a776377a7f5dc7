"""Pictures of a run: what came in, what was restored, and what it should have been."""

import numpy as np
from jaxtyping import UInt8

from interlcm_jax.errors import InterLCMError

SEPARATOR = 2
GRAY = 128

Pictures = UInt8[np.ndarray, "B H W 3"]


def sample_grid(lq: Pictures, restored: Pictures, hq: Pictures) -> UInt8[np.ndarray, "rows columns 3"]:
    """One picture of a row for each image: LQ | restored | HQ, with two pixels of gray between.

    Raises:
        InterLCMError: the three aren't uint8 pictures of one shape.
    """
    columns = (lq, restored, hq)
    if any(x.dtype != np.uint8 or x.ndim != 4 or x.shape != hq.shape or x.shape[-1] != 3 for x in columns):
        described = ", ".join(f"{x.dtype} {x.shape}" for x in columns)
        raise InterLCMError(f"pictures for a grid must all be uint8 of one shape (B, H, W, 3), but are {described}")
    count, height, width, _ = hq.shape
    across, down = width + SEPARATOR, height + SEPARATOR
    grid = np.full((count * down - SEPARATOR, 3 * across - SEPARATOR, 3), GRAY, np.uint8)
    for column, images in enumerate(columns):
        for row, image in enumerate(images):
            grid[row * down : row * down + height, column * across : column * across + width] = image
    return grid
