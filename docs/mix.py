r"""Mixes two models' weights, number by number: a share of one training in the other's result.

python docs/mix.py runs/small/3step_structure/model runs/small/3step_adversarial/model --share 0.65 -o MIXED
python docs/mix.py runs/small/autoencoder_wide_finish/model runs/small/autoencoder_wide/model --networks vae \
    --share 0.5 -o MIXED
python docs/mix.py runs/small/3step_wide/model runs/small/3step_wide_sharpen/model --share 1.12 -o MIXED

The first mixes the encoders, the second the autoencoders, the third goes beyond the other encoders. Weights of a
network and of what it became in a further training mix well: between them, and a little beyond, lies a way from
faithful to sharp (Wang et al. 2018, ESRGAN, section 3.4).
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from interlcm_jax.files.atomic import whole_folder
from interlcm_jax.model_folder import NETWORKS, weights_file

ENCODERS = ("visual_encoder", "spatial_encoder")


def main() -> None:
    """Writes the first model's folder again, some of its networks moved towards the second's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a model folder; its other networks stay as they are")
    parser.add_argument("other", type=Path, help="a model folder with networks of the same sizes")
    parser.add_argument("--share", type=float, required=True, help="of the other's weights, from 0 to 2")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=ENCODERS, help="default: both encoders")
    parser.add_argument("--dtype", help="of the weights written, float16 for one; by default as they are")
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    if not 0 <= arguments.share <= 2:
        parser.error(f"--share is {arguments.share}, but must be from 0 to 2")
    with whole_folder(arguments.out) as folder:
        shutil.copytree(arguments.model, folder, dirs_exist_ok=True)
        for network in NETWORKS:
            if (path := weights_file(folder, network)).is_file():
                weights = load_file(path)
                if network in arguments.networks:
                    weights = mixed(weights, load_file(weights_file(arguments.other, network)), arguments.share)
                cast = {key: each.astype(arguments.dtype or each.dtype) for key, each in weights.items()}
                path.write_bytes(save(cast))


def mixed(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], share: float) -> dict[str, np.ndarray]:
    """Each weight moved by `share` of the way to the other's: reckoned in float32, given in the dtype it had.

    Raises:
        ValueError: the two differ in their weights' names or shapes.
    """
    if {key: each.shape for key, each in ours.items()} != {key: each.shape for key, each in theirs.items()}:
        raise ValueError("the two networks have other weights: their sizes differ")
    wide = ((key, each.astype(np.float32), theirs[key].astype(np.float32)) for key, each in ours.items())
    return {key: (mine + share * (other - mine)).astype(ours[key].dtype) for key, mine, other in wide}


if __name__ == "__main__":
    main()
