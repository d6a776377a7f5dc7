"""How well detectors find faces, and how fast: in photos composed of aligned faces and backgrounds; all is known.

    python -m benchmarks.composed_photos FACES [--retinaface FILE.pth ...] [--backgrounds DIR] [--count 200] [-o FILE]

FACES is a folder of faces aligned as FFHQ's. A photo has up to five of them on a background, 30 to 400 pixels high,
turned by up to 30 degrees, then blur, noise and JPEG; one photo in four has none. A face is found where the mean
distance of its five landmarks from where they are is at most 0.4 of the distance of the eyes. MTCNN is always measured;
`--retinaface` adds weights as they were published. All go through `find_faces`, as `interlcm restore` does.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.report import Report, add_output
from interlcm_jax.convert.checkpoints import read_weights
from interlcm_jax.convert.retinaface import table
from interlcm_jax.convert.rules import to_jax
from interlcm_jax.faces.align import template
from interlcm_jax.faces.detect import Detector, Face, scoring_above
from interlcm_jax.faces.find import find_faces
from interlcm_jax.faces.mtcnn_detector import MTCNN
from interlcm_jax.faces.retinaface import RetinaFace, RetinaFaceConfig
from interlcm_jax.faces.retinaface_detector import RetinaFaceDetector
from interlcm_jax.imaging.io import read_image
from interlcm_jax.imaging.listing import find_images
from interlcm_jax.models.weights import abstract, fill, weight_specs

HEIGHT, WIDTH = 960, 1280
HIGHEST = 350 / 512  # from hairline to chin, of an aligned face's side
SIZES = (30, 400)
BANDS = (30, 45, 90, 180)  # lower ends of the sizes that recall is told by, pixels
TURN, MOST, FACELESS = 30, 5, 0.25
TRIES = 50  # at a place for a face that has room for it
FOUND = 0.4  # of the distance of the eyes
COLUMNS = {"detector": "", "recall": ".3f", "recall_by_size": ".2f", "precision": ".3f", "false_faces": "d"}
COLUMNS |= {"landmark_error": ".3f", "seconds": ".3f", "cpu_seconds": ".3f"}
# Photos without a face that scikit-image's wheel carries.
SCENES = ("brick", "chelsea", "coffee", "coins", "grass", "gravel", "hubble_deep_field", "moon", "page", "rocket")


@dataclasses.dataclass
class Composed:
    """A photo, uint8 RGB, and of each of its faces the landmarks (5, 2) and the height, pixels."""

    pixels: np.ndarray
    landmarks: list[np.ndarray] = dataclasses.field(default_factory=list)
    sizes: list[float] = dataclasses.field(default_factory=list)


def compose(faces: Sequence[Path], scenes: Sequence[np.ndarray], seed: int) -> Composed:
    """The photo of a seed."""
    rng = np.random.default_rng(seed)
    photo = Composed(_background(scenes[rng.integers(len(scenes))], rng))
    taken: list[tuple[np.ndarray, float]] = []
    count = 0 if rng.random() < FACELESS else rng.integers(1, MOST + 1)
    for _ in range(TRIES):
        if len(taken) == count:
            break
        size = float(np.exp(rng.uniform(*np.log(SIZES))))
        side, center = size / HIGHEST, rng.uniform((0, 0), (WIDTH, HEIGHT))
        inside = (center > 0.55 * side).all() and (center < np.array([WIDTH, HEIGHT]) - 0.55 * side).all()
        if inside and all(np.linalg.norm(center - other) > 0.6 * (side + reach) for other, reach in taken):
            taken.append((center, side))
            _paste(photo, read_image(faces[rng.integers(len(faces))]), center, size, rng.uniform(-TURN, TURN))
    photo.pixels = _degraded(photo.pixels, rng)
    return photo


def _background(scene: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A part of a scene that fills the photo."""
    least = max(HEIGHT / scene.shape[0], WIDTH / scene.shape[1])
    factor = least * rng.uniform(1, 1.5)
    large = cv2.resize(scene, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    top, left = (rng.integers(0, large.shape[i] - side + 1) for i, side in enumerate((HEIGHT, WIDTH)))
    return large[top : top + HEIGHT, left : left + WIDTH].copy()


def _paste(photo: Composed, face: np.ndarray, center: np.ndarray, size: float, turn: float) -> None:
    """Lays the head of an aligned face over the photo, with soft edges, so many degrees clockwise."""
    side = size / HIGHEST
    # Reduced to twice its size at most: warping looks at four pixels only.
    small = face if len(face) <= 2 * side else cv2.resize(face, (round(2 * side),) * 2, interpolation=cv2.INTER_AREA)
    middle = len(small) / 2 - 0.5
    matrix = cv2.getRotationMatrix2D((middle, middle), -turn, side / len(small))
    matrix[:, 2] += center - middle
    y, x = np.mgrid[: len(small), : len(small)] / len(small)
    head = np.clip(8 * (1 - np.hypot((x - 0.5) / 0.42, (y - 0.5) / 0.5)), 0, 1).astype(np.float32)
    layer, opacity = (cv2.warpAffine(image, matrix, (WIDTH, HEIGHT)) for image in (small, head))
    photo.pixels = (photo.pixels + opacity[..., None] * (layer.astype(np.float32) - photo.pixels)).astype(np.uint8)
    points = template(len(small))
    photo.landmarks.append(points @ matrix[:, :2].T + matrix[:, 2])
    photo.sizes.append(size)


def _degraded(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blurred (0 to 2 pixels), with noise (0 to 12 levels of 255), as a JPEG (quality 30 to 95)."""
    blurred = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.01, 2)).astype(np.float32)
    noisy = blurred + rng.uniform(0, 12) * rng.standard_normal(blurred.shape, np.float32)
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 96))]
    _, file = cv2.imencode(".jpg", noisy.clip(0, 255).astype(np.uint8)[..., ::-1], quality)
    return np.ascontiguousarray(cv2.imdecode(file, cv2.IMREAD_COLOR)[..., ::-1])


def measure(detector: Detector, photos: Iterator[Composed]) -> dict[str, Any]:
    """A row of the report."""
    sizes, errors, seconds, cpu_seconds, found = [], [], [], [], 0
    for number, photo in enumerate(photos):
        if number == 0:
            find_faces(photo.pixels, detector)  # compiles
        start, cpu_start = time.perf_counter(), time.process_time()
        faces = find_faces(photo.pixels, detector)
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
        sizes += photo.sizes
        errors += [min((error(face, landmarks) for face in faces), default=np.inf) for landmarks in photo.landmarks]
        found += len(faces)
    hits, bands = np.array(errors) <= FOUND, np.searchsorted(BANDS, sizes, side="right") - 1
    by_size = {f"{low:3}": hits[bands == i].mean() for i, low in enumerate(BANDS) if (bands == i).any()}
    return {
        "faces": len(hits),
        "recall": float(hits.mean()),
        "recall_by_size": by_size,
        "precision": float(hits.sum() / max(found, 1)),
        "false_faces": int(found - hits.sum()),
        "landmark_error": float(np.median(np.array(errors)[hits])) if hits.any() else None,
        "seconds": statistics.median(seconds),
        "cpu_seconds": statistics.median(cpu_seconds),
    }


def error(face: Face, landmarks: np.ndarray) -> float:
    """Mean distance of a face's landmarks from these, in distances of the eyes."""
    eyes = np.linalg.norm(landmarks[1] - landmarks[0])
    return float(np.linalg.norm(face.landmarks - landmarks, axis=1).mean() / eyes)


def retinaface(path: Path) -> RetinaFaceDetector:
    """The detector of a PyTorch file."""
    weights = read_weights(path)
    config = RetinaFaceConfig.published(weights)
    network = abstract(lambda rngs: RetinaFace(config, rngs=rngs))
    fill(network, to_jax(weights, weight_specs(RetinaFace, config), table(config), path), path)
    return RetinaFaceDetector(network)


def main(argv: list[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("faces", type=Path, metavar="FACES", help="a folder of aligned faces")
    add("--backgrounds", type=Path, metavar="DIR", help="photos without faces (default: scikit-image's)")
    add("--retinaface", type=Path, nargs="*", default=[], metavar="FILE", help="its weights in PyTorch")
    add("--detection-threshold", type=float, metavar="X", help="default: the detectors' own")
    add("--count", type=int, default=200, help="photos (default: 200)")
    add("--seed", type=int, default=0, help="of the first photo (default: 0)")
    add_output(parser)
    asked = parser.parse_args(argv)
    faces = find_images(asked.faces).images
    scenes = _scenes(asked.backgrounds)
    detectors: dict[str, Detector] = {"MTCNN": MTCNN()} | {path.name: retinaface(path) for path in asked.retinaface}
    report = Report(COLUMNS, asked.output)
    for name, detector in detectors.items():
        photos = (compose(faces, scenes, asked.seed + i) for i in range(asked.count))
        report.add({"detector": name, **measure(scoring_above(detector, asked.detection_threshold), photos)})


def _scenes(folder: Path | None) -> list[np.ndarray]:
    if folder is not None:
        return [read_image(path) for path in find_images(folder).images]
    import skimage.data

    files = Path(skimage.data.__file__).parent
    return [read_image(next(files.glob(f"{name}.*"))) for name in SCENES]


if __name__ == "__main__":
    main()
