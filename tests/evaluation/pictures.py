"""Folders of small made-up pictures: originals, and restored ones that differ from them more and more."""

from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, size: int = 32) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def spoilt(pixels: np.ndarray, level: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, level, pixels.shape)
    return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_set(folder: Path, count: int, size: int = 32) -> None:
    """hq/, lq/ and restored/ of `count` images called 000.png and so on."""
    for i in range(count):
        hq = picture(i, size)
        save(folder / "hq" / f"{i:03}.png", hq)
        save(folder / "lq" / f"{i:03}.png", spoilt(hq, 40, i))
        save(folder / "restored" / f"{i:03}.png", spoilt(hq, 2 + i, i))
