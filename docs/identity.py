"""Whether restored faces are still the same people, by dlib's face recognition (a ResNet-29; same person: below 0.6).

pip install dlib-bin && pip download --no-deps face_recognition_models && tar xzf face_recognition_models-*.tar.gz
python docs/identity.py face_recognition_models-0.3.0/face_recognition_models/models test/hq test/lq OUT/restored

The landmarks that a face is cut out by are the original's for all of its versions: alignment isn't what is measured.
"""

import argparse
from pathlib import Path

import dlib
import numpy as np
from PIL import Image

SAME = 0.6  # the distance below which dlib calls two faces one person's
# Where an aligned face is, as parts of the image's side: left, top, right, bottom.
BOX = (0.22, 0.30, 0.78, 0.86)


def main() -> None:
    """Prints a line for each folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help="the folder of dlib's .dat files")
    parser.add_argument("hq", type=Path, help="the originals")
    parser.add_argument("folders", type=Path, nargs="+", help="versions of them under the same names")
    arguments = parser.parse_args()
    landmarks = dlib.shape_predictor(str(arguments.models / "shape_predictor_5_face_landmarks.dat"))
    network = dlib.face_recognition_model_v1(str(arguments.models / "dlib_face_recognition_resnet_model_v1.dat"))
    originals = read(arguments.hq)
    shapes = {name: landmarks(image, dlib.rectangle(*corners(image))) for name, image in originals.items()}

    def embed(images: dict[str, np.ndarray]) -> np.ndarray:
        return np.stack([network.compute_face_descriptor(images[name], shapes[name], 10) for name in originals])

    wanted = embed(originals)
    others = np.linalg.norm(wanted[:, None] - wanted[None], axis=-1)[~np.eye(len(wanted), dtype=bool)]
    print(f"{len(wanted)} people; between two of them: {others.mean():.3f} on average, {others.min():.3f} at least")
    for folder in arguments.folders:
        distances = np.linalg.norm(embed(read(folder))[:, None] - wanted[None], axis=-1)
        own = np.diagonal(distances)
        found = (distances.argmin(axis=1) == np.arange(len(wanted))).mean()
        print(
            f"{folder}: {own.mean():.3f} from the original; same person {(own < SAME).mean():.0%}; nearest {found:.0%}"
        )


def read(folder: Path) -> dict[str, np.ndarray]:
    """The folder's images by name."""
    return {path.stem: np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.iterdir())}


def corners(image: np.ndarray) -> list[int]:
    """The aligned face's box in pixels."""
    return [round(part * image.shape[0]) for part in BOX]


if __name__ == "__main__":
    main()
