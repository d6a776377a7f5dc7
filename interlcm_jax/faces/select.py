"""Which faces of a photo are meant: by size, by score, by place, or by number from left to right."""

import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from interlcm_jax.errors import InterLCMError, number_problems
from interlcm_jax.faces.detect import Detector, Face, scoring_above
from interlcm_jax.faces.find import find_faces

ALL, LARGEST, CENTER = "all", "largest", "center"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaceChoice:
    """Which faces of a photo are meant.

    Attributes:
        faces: of the faces that the other three leave: "all"; "largest"; "center", the one nearest the photo's center;
            or their numbers, like "0" or "0,2", counted from left to right from 0.
        min_face: the longer side of a face's box must have as many pixels of the photo.
        max_faces: how many are left, the largest; None is all.
        detection_threshold: a face must score more, 0 to 1; None is the detector's own bound. A detector of your own
            can't be asked for more faces than it gives: MTCNN and RetinaFace can.

    Raises:
        InterLCMError: one of them isn't possible.
    """

    faces: str = ALL
    min_face: float = 0.0
    max_faces: int | None = None
    detection_threshold: float | None = None

    def __post_init__(self):
        _numbers(self.faces)
        if number_problems("min_face", self.min_face, 0, math.inf, float):
            raise InterLCMError(f"min_face is {self.min_face!r}, but must be a number of pixels from 0")
        if self.max_faces is not None and number_problems("max_faces", self.max_faces, 1, math.inf):
            raise InterLCMError(f"max_faces is {self.max_faces!r}, but must be an integer from 1")
        if self.detection_threshold is not None:
            problems = number_problems("detection_threshold", self.detection_threshold, 0, 1, float)
            if problems:
                raise InterLCMError(problems[0])


def find_candidates(
    photo: UInt8[np.ndarray, "H W 3"], detector: Detector, choice: FaceChoice, enlarged: float = 1.0
) -> list[Face]:
    """The faces that `choice.faces` chooses from, the best first.

    Args:
        photo: the photo.
        detector: finds its faces.
        choice: size, number and score.
        enlarged: pixels of `photo` to one of the photo as it came, which `choice.min_face` counts.
    """
    found = find_faces(photo, scoring_above(detector, choice.detection_threshold))
    return large_faces(found, choice, enlarged)


def large_faces(found: Sequence[Face], choice: FaceChoice, enlarged: float = 1.0) -> list[Face]:
    """Those that `choice.min_face` and `choice.max_faces` leave; see `find_candidates`."""
    found = [face for face in found if face.size >= choice.min_face * enlarged]
    kept = sorted(found, key=lambda face: -face.size)[: choice.max_faces]
    return [face for face in found if face in kept]


def select_faces(
    candidates: Sequence[Face], photo: UInt8[np.ndarray, "H W 3"], faces: str, *, missing_ok: bool = False
) -> list[Face]:
    """Those of a photo's faces that are meant, in the order they came in.

    Args:
        candidates: from `find_candidates`.
        photo: the photo.
        faces: see `FaceChoice`.
        missing_ok: pass over numbers that none of the faces has.

    Raises:
        InterLCMError: a number that none of the faces has; says how many there are.
    """
    numbers = _numbers(faces)
    if numbers is not None:
        ordered = left_to_right(candidates)
        missing = [number for number in numbers if number >= len(ordered)]
        if missing and not missing_ok:
            raise InterLCMError(f"there is no face {', '.join(map(str, missing))}: {_there(len(ordered))}")
        chosen = [ordered[number] for number in numbers if number not in missing]
        return [face for face in candidates if face in chosen]
    if faces == ALL or not candidates:
        return list(candidates)
    return [largest_face(candidates) if faces == LARGEST else center_face(candidates, photo)]


def left_to_right(faces: Sequence[Face]) -> list[Face]:
    """In the order of their numbers: by their boxes' centers, the higher first of those one above the other."""
    return sorted(faces, key=lambda face: tuple(face.box[:2] + face.box[2:]))


def largest_face(faces: Sequence[Face]) -> Face:
    """The largest of one or more faces."""
    return max(faces, key=lambda face: face.size)


def center_face(faces: Sequence[Face], photo: UInt8[np.ndarray, "H W 3"]) -> Face:
    """Of one or more faces, the one with its box's center nearest the photo's."""
    middle = np.array(photo.shape[1::-1]) / 2
    return min(faces, key=lambda face: np.linalg.norm((face.box[:2] + face.box[2:]) / 2 - middle))


def _there(count: int) -> str:
    """Which numbers the faces of a photo have."""
    if count < 2:
        return "the photo has 1 face, which is number 0" if count else "no face was found in the photo"
    return (
        f"the photo has {count} faces, numbered 0 to {count - 1} from left to right; interlcm restore --list-faces "
        "shows them"
    )


def _numbers(faces: str) -> list[int] | None:
    """The numbers in `FaceChoice.faces`; None where it is a word."""
    if faces in (ALL, LARGEST, CENTER):
        return None
    if not isinstance(faces, str) or not re.fullmatch(r"\s*\d{1,6}\s*(,\s*\d{1,6}\s*)*", faces):
        raise InterLCMError(f"faces is {faces!r}, but must be {ALL}, {LARGEST}, {CENTER}, or numbers such as 0 or 0,2")
    return sorted({int(number) for number in faces.split(",")})
