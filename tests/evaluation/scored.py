"""Sets of pictures, scored."""

import numpy as np
from PIL import Image

from interlcm_jax.evaluation.compare import Subject, compare
from interlcm_jax.evaluation.pairs import images_by_name
from interlcm_jax.evaluation.weights import Library


def scored(folder, metrics, library=None, **options):
    """The restored images of a set, scored."""
    files, hq = images_by_name(folder / "restored")[0], images_by_name(folder / "hq")[0]
    return compare([Subject("restored", "method", files)], hq, metrics, library or Library(), **options)


def pixels_of(folder) -> np.ndarray:
    """The pictures in a folder, in order of name."""
    return np.stack([np.asarray(Image.open(file)) for file in sorted(folder.iterdir())])
