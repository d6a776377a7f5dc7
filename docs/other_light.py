"""Writes faces in other light and on other film: shadows, gray, faded or tinted, each in a way of its own.

python docs/other_light.py runs/data/test/hq -o runs/light
interlcm dataset runs/light -o runs/data/light --size 256 --frozen --degradation release-256
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from interlcm_jax.data.photometric import PhotometricConfig, change_tones, draw_tones
from interlcm_jax.data.randomness import rng_for
from interlcm_jax.files.atomic import whole_file

# As the small model's training has them.
TONES = PhotometricConfig(probability=1.0, gray=0.4, gamma=0.7, contrast=0.5, shade=0.8, tint=12.0)


def main() -> None:
    """Changes each image of the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path, help="a folder of images")
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(sorted(arguments.faces.iterdir())):
        tones = draw_tones(TONES, rng_for(0, "other light", number, 0))
        changed = change_tones(np.asarray(Image.open(path).convert("RGB")), tones)
        with whole_file(arguments.out / f"{path.stem}.png") as temporary:
            Image.fromarray(changed).save(temporary, "PNG")


if __name__ == "__main__":
    main()
