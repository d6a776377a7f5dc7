"""How much detail faces have, and how much of it is their originals', by its size.

python docs/spectrum.py runs/scores/restored runs/data/test/hq

A line for each band of spatial frequencies, of the luma: power as a share of the originals', and correlation with them.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
from PIL import Image

LUMA = (0.299, 0.587, 0.114)
# Edges of the bands in cycles a pixel; a detail is half a cycle wide.
BANDS = (0.0, 0.04, 0.08, 0.125, 0.16, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.71)


def main() -> None:
    """Prints the bands of a folder of faces."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path, help="a folder of faces")
    parser.add_argument("originals", type=Path, help="a folder of files of the same names, without their suffixes")
    arguments = parser.parse_args()
    originals = {path.stem: path for path in arguments.originals.iterdir()}
    paths = sorted(arguments.faces.iterdir())
    faces, wanted = (spectra(some) for some in (paths, [originals[path.stem] for path in paths]))
    height, width = faces.shape[1:]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    print("cycles a pixel   power   correlation")
    for low, high in itertools.pairwise(BANDS):
        here = (low <= frequency) & (frequency < high)
        power = [float((np.abs(each[:, here]) ** 2).mean()) for each in (faces, wanted)]
        common = float((faces[:, here] * wanted[:, here].conj()).real.mean())
        print(f"{low:.3f} to {high:.3f}   {power[0] / power[1]:5.2f}   {common / np.sqrt(power[0] * power[1]):.2f}")


def spectra(paths: list[Path]) -> np.ndarray:
    """Fourier transforms of the images' luma, their means taken off and their edges faded out; (N, H, W), complex."""
    luma = np.stack([np.asarray(Image.open(path).convert("RGB"), np.float64) @ LUMA for path in paths])
    window = np.hanning(luma.shape[1])[:, None] * np.hanning(luma.shape[2])
    return np.fft.fft2((luma - luma.mean((1, 2), keepdims=True)) * window)


if __name__ == "__main__":
    main()
