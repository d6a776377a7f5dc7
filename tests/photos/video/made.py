"""Videos of made-up faces, a detector that finds them by their color, and a model without networks."""

import numpy as np

from interlcm_jax.faces.detect import Face
from tests.photos.darkening import Darkening
from tests.photos.darkening import face as aligned_square

SIDE = 44  # of a face's aligned square, in pixels


class Halving(Darkening):
    """Halves every face; has no weights."""

    weights: dict = {}  # noqa: RUF012


def faces_moving(count, *, lost=(), cut=None, width=160, height=96):
    """Frames with a red and a blue square that drift; the blue one is hidden in the frames `lost`.

    From frame `cut` on, everything else is another scene.
    """
    y, x = np.mgrid[:height, :width]
    frames = []
    for i in range(count):
        scene = 0 if cut is None or i < cut else 1
        light = 90 + 30 * np.sin(x / (9 + 12 * scene) + y / 15) if not scene else 190 - 40 * np.sin(x / 20 + y / 9)
        frame = np.repeat(light[..., None], 3, axis=2)
        left, top = place(i, 0)
        frame[top : top + SIDE, left : left + SIDE] = (200, 90, 90)
        if i not in lost:
            left, top = place(i, 1)
            frame[top : top + SIDE, left : left + SIDE] = (90, 90, 200)
        frames.append(frame.astype(np.uint8))
    return frames


def place(i, which):
    """Left and top of a square in frame i."""
    return ((10 + i) if which == 0 else (100 - i), 20 + which * 10)


def detector(pixels):
    """The squares, by their colors."""
    red, blue = (pixels[..., k].astype(int) - pixels[..., 2 - k] > 60 for k in (0, 2))
    found = []
    for mask in (red, blue):
        rows, columns = np.nonzero(mask)
        if len(rows) > 600:
            found.append(square(columns.mean() - SIDE / 2 + 0.5, rows.mean() - SIDE / 2 + 0.5))
    return found


def square(left: float, top: float) -> Face:
    """A face whose aligned square this is."""
    return aligned_square(left, top, SIDE)
