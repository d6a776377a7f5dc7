"""The README's photo: a damaged copy of NASA's portrait of Eileen Collins, and how near its restoration comes to it.

python docs/portrait.py damage -o docs/astronaut.jpg
interlcm restore docs/astronaut.jpg -o restored
python docs/portrait.py compare docs/astronaut.jpg restored/astronaut.png -o docs/before_after.jpg

The portrait is scikit-image's, in the public domain.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.data import astronaut

from interlcm_jax.data.degradation import Blind, Draws, degrade
from interlcm_jax.faces.mtcnn import load_networks
from interlcm_jax.files.atomic import whole_file
from interlcm_jax.metrics.image import psnr, ssim
from interlcm_jax.metrics.onet import onet_distance
from interlcm_jax.metrics.sharpness import laplacian_variance

SHOWN = (slice(0, 340), slice(60, 400))  # rows and columns of the portrait
FACE = (slice(70, 180), slice(115, 215))  # of what is shown
DAMAGE = Draws(
    Blind(41, sigma_x=1.0, sigma_y=1.0, rotation=0.0, scale=2.0, noise_sigma=6.0, noise_seed=0, jpeg_quality=75)
)
PART, SIDE = (75, 0, 279, 204), 384  # of the picture: left, top, right, bottom of what is shown; pixels


def main() -> None:
    """Damages the portrait, or compares a damaged and a restored one with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    damaged = commands.add_parser("damage")
    compared = commands.add_parser("compare")
    compared.add_argument("before", type=Path)
    compared.add_argument("after", type=Path)
    for each in (damaged, compared):
        each.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    original = Image.fromarray(astronaut()[SHOWN])
    if arguments.command == "damage":
        picture = Image.fromarray(degrade(np.asarray(original), DAMAGE))
    else:
        picture = compare(Image.open(arguments.before), Image.open(arguments.after), original)
    with whole_file(arguments.out) as temporary:
        picture.save(temporary, "JPEG", quality=92)


def compare(before: Image.Image, after: Image.Image, original: Image.Image) -> Image.Image:
    """The three side by side; prints the numbers of the face, at the original's size."""
    page, onet = Image.new("RGB", (3 * SIDE, SIDE)), load_networks()[2]
    wanted = np.asarray(original)[FACE][None]
    for place, (name, image) in enumerate({"before": before, "after": after, "original": original}.items()):
        scale = image.width / original.width
        box = tuple(scale * edge for edge in PART)
        page.paste(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box), (place * SIDE, 0))
        face = np.asarray(image.resize(original.size, Image.Resampling.LANCZOS))[FACE][None]
        unit = [pixels.astype(np.float32) / 127.5 - 1 for pixels in (face, wanted)]
        numbers = (psnr(face, wanted), ssim(face, wanted), onet_distance(onet, *unit), laplacian_variance(face))
        told = "PSNR {:.1f} dB, SSIM {:.3f}, O-Net's distance {:.3f}, sharpness {:.0f}"
        print(f"{name}: {told.format(*(float(number[0]) for number in numbers))}")
    return page


if __name__ == "__main__":
    main()
