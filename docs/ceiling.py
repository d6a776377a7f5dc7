"""Writes faces as a model's autoencoder gives them back: no restoration by it can be better.

python docs/ceiling.py MODEL data/test/hq -o runs/ceiling
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from interlcm_jax.files.atomic import whole_file
from interlcm_jax.model_folder import load_network, read_config
from interlcm_jax.models.vae import AutoencoderKL
from interlcm_jax.models.weights import abstract


def main() -> None:
    """Encodes and decodes each image of the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a model folder")
    parser.add_argument("faces", type=Path, help="a folder of images of the model's size")
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    config = read_config(arguments.model)
    vae = abstract(lambda rngs: AutoencoderKL(config.vae, rngs=rngs))
    load_network(arguments.model, "vae", vae)
    round_trip = jax.jit(lambda image: vae.decode(vae.encode(image)[0]))
    arguments.out.mkdir(parents=True, exist_ok=True)
    for path in sorted(arguments.faces.iterdir()):
        image = np.asarray(Image.open(path).convert("RGB"), np.float32)[None] / 127.5 - 1
        pixels = jnp.round((jnp.clip(round_trip(image)[0], -1, 1) + 1) * 127.5).astype(jnp.uint8)
        with whole_file(arguments.out / f"{path.stem}.png") as temporary:
            Image.fromarray(np.asarray(pixels)).save(temporary, "PNG")


if __name__ == "__main__":
    main()
