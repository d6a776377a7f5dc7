"""Mixes two models' encoders, weight by weight: a share of one training in the other's result.

python docs/mix.py runs/small/3step_finish/model runs/small/3step_adversarial/model --share 0.2 -o MIXED

Weights of a network and of what it became in a further training mix well: between them lies a way from faithful to
sharp (Wang et al. 2018, ESRGAN, section 3.4).
"""

import argparse
from pathlib import Path

from interlcm_jax import InterLCM
from interlcm_jax.models.weights import values, with_values

ENCODERS = ("visual_encoder", "spatial_encoder")


def main() -> None:
    """Writes the first model's folder again, its encoders moved towards the second's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a model folder; all but its encoders stays as it is")
    parser.add_argument("other", type=Path, help="a model folder with encoders of the same sizes")
    parser.add_argument("--share", type=float, required=True, help="of the other's encoders, from 0 to 1")
    parser.add_argument("--dtype", help="of the weights written, float16 for one; by default float32")
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    if not 0 <= arguments.share <= 1:
        parser.error(f"--share is {arguments.share}, but must be from 0 to 1")
    model, other = (InterLCM.from_pretrained(folder) for folder in (arguments.model, arguments.other))
    mine, theirs = values(model.networks), values(other.networks)
    mixed = {
        path: weight + arguments.share * (theirs[path] - weight) if path.startswith(ENCODERS) else weight
        for path, weight in mine.items()
    }
    InterLCM(model.config, with_values(model.networks, mixed)).save_pretrained(arguments.out, arguments.dtype)


if __name__ == "__main__":
    main()
