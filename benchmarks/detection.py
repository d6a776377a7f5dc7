"""Scores a face detector on composed photos: precision, recall, and error of the landmarks.

    python -m benchmarks.detection --faces DIR [--detector MODULE:NAME] [--photos 50] [--degraded] [--pictures OUT]

DIR holds images of faces aligned as FFHQ's are. Each photo shows 3 to 8 of them, 40 to 250 pixels high from hairline to
chin, turned by up to 30 degrees either way, on gradients, noise, waves, and pieces of such images. A face counts as
found when a box has an IoU of at least 0.5 with its own, which is that of the turned oval from hairline to chin. Each
further box is wrong, a second one on the same face too. The landmarks are compared with where the template says they
are, in parts of the distance between the eyes: faces differ from the template by a few hundredths themselves.
"""

import argparse
import dataclasses
import importlib
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float

from benchmarks.composed_photos import KnownFace, Photo, compose
from interlcm_jax.faces.detect import Detector, Face
from interlcm_jax.imaging.io import SUFFIXES, write_image

MIN_IOU = 0.5
HEIGHTS, ANGLES = (40, 60, 100, 160, 250), (0, 10, 20, 30)
POINTS = ("left eye", "right eye", "nose", "left of mouth", "right of mouth")


@dataclasses.dataclass(frozen=True, eq=False)
class Pair:
    """A found face and the known one it matches; either may be absent."""

    found: Face | None
    known: KnownFace | None

    @property
    def height(self) -> float:
        """The known face's, else that of the found box."""
        return self.known.height if self.known else float(self.found.box[3] - self.found.box[1])

    @property
    def angle(self) -> float:
        """Turn in degrees, either way: the known face's, else that of the found eyes."""
        if self.known:
            return abs(self.known.angle)
        x, y = self.found.landmarks[1] - self.found.landmarks[0]
        return abs(float(np.rad2deg(np.arctan2(y, x))))

    @property
    def landmark_errors(self) -> Float[np.ndarray, "5"]:
        """Distances of the landmarks, in parts of that between the known eyes."""
        known = self.known.landmarks
        return np.linalg.norm(self.found.landmarks - known, axis=1) / np.linalg.norm(known[1] - known[0])


def overlap(a: Float[np.ndarray, "4"], b: Float[np.ndarray, "4"]) -> float:
    """Intersection over union of two boxes."""
    shared = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    return float(shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared))


def match(found: Sequence[Face], known: Sequence[KnownFace]) -> list[Pair]:
    """Pairs each found face, the best first, with the known face it overlaps most of those left, if by enough."""
    left, pairs = list(known), []
    for face in sorted(found, key=lambda face: -face.score):
        best = max(left, key=lambda other: overlap(face.box, other.box), default=None)
        if best is not None and overlap(face.box, best.box) >= MIN_IOU:
            left.remove(best)
            pairs.append(Pair(face, best))
        else:
            pairs.append(Pair(face, None))
    return pairs + [Pair(None, other) for other in left]


def row(name: str, pairs: Sequence[Pair]) -> str:
    """One line of the table."""
    both = [pair for pair in pairs if pair.found and pair.known]
    found, known = sum(pair.found is not None for pair in pairs), sum(pair.known is not None for pair in pairs)
    error = np.mean([pair.landmark_errors for pair in both]) if both else np.nan
    return f"{name:20}{len(both) / max(found, 1):10.3f}{len(both) / max(known, 1):8.3f}{known:7d}{error:11.3f}"


def table(pairs: Sequence[Pair]) -> str:
    """Precision, recall and mean landmark error overall, by height and by turn; the error by landmark."""
    lines = [f"{'':20}{'precision':>10}{'recall':>8}{'faces':>7}{'landmarks':>11}", row("all", pairs)]
    # What is larger, or turned further, than any known face counts with the last.
    for limits, value, unit in ((HEIGHTS, "height", "pixels"), (ANGLES, "angle", "degrees")):
        for low, high in itertools.pairwise(limits):
            low_enough = np.inf if high == limits[-1] else high
            high_enough = 0 if low == limits[0] else low
            chosen = [pair for pair in pairs if high_enough <= getattr(pair, value) < low_enough]
            lines.append(row(f"{low} to {high} {unit}", chosen))
    errors = np.mean([pair.landmark_errors for pair in pairs if pair.found and pair.known], axis=0)
    lines.append("landmark errors: " + ", ".join(f"{n} {e:.3f}" for n, e in zip(POINTS, errors, strict=True)))
    return "\n".join(lines)


def draw(path: Path, photo: Photo, pairs: Sequence[Pair]) -> None:
    """Saves the photo with found faces in green, wrong ones in red, missed ones in blue."""
    pixels = np.ascontiguousarray(photo.pixels)
    for pair in pairs:
        color = (0, 0, 255) if not pair.found else (0, 255, 0) if pair.known else (255, 0, 0)
        left, top, right, bottom = map(int, (pair.found or pair.known).box.round())
        cv2.rectangle(pixels, (left, top), (right, bottom), color, 2)
        for x, y in (pair.found or pair.known).landmarks.round().astype(int):
            cv2.circle(pixels, (int(x), int(y)), 2, color, -1)
    write_image(path, pixels)


def detector_named(name: str) -> Detector:
    """Builds a detector from `MODULE:NAME`, a class or function that takes no arguments."""
    module, _, attribute = name.partition(":")
    factory: Callable[[], Detector] = getattr(importlib.import_module(module), attribute)
    return factory()


def main() -> None:
    """Composes, detects, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, required=True, help="folder of aligned faces")
    parser.add_argument("--detector", default="interlcm_jax.faces.mtcnn_detector:MTCNN", metavar="MODULE:NAME")
    parser.add_argument("--photos", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--degraded", action="store_true", help="blur, shrink, noise and compress the photos")
    parser.add_argument("--pictures", type=Path, help="folder for the photos with what was found")
    arguments = parser.parse_args()
    files = sorted(path for path in arguments.faces.iterdir() if path.suffix.lower() in SUFFIXES)
    detect = detector_named(arguments.detector)
    pairs, seconds, pixels = [], 0.0, 0
    for i in range(arguments.photos):
        rng = np.random.default_rng((arguments.seed, i))
        photo = compose(rng, files, degraded=arguments.degraded)
        start = time.perf_counter()
        found = detect(photo.pixels)
        # The first one also compiles.
        if i > 0:
            seconds += time.perf_counter() - start
            pixels += photo.pixels[..., 0].size
        matched = match(found, photo.faces)
        pairs += matched
        if arguments.pictures:
            draw(arguments.pictures / f"{i:03}.png", photo, matched)
    print(table(pairs))
    if pixels:
        print(f"{seconds / (arguments.photos - 1):.2f} s a photo, {seconds / pixels * 1e6:.2f} s a megapixel")


if __name__ == "__main__":
    main()
