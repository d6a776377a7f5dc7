"""Small made-up faces, told apart by their bytes."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_faces(folder: Path, count: int, size: int = 64, suffix: str = ".png") -> list[Path]:
    """Writes `count` images and returns their files in the order of their names."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(count)
    files = [folder / f"{index:03}{suffix}" for index in range(count)]
    for file in files:
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        coarse.resize((size, size), Image.Resampling.BICUBIC).save(file)
    return files
