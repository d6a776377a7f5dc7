"""The faces of a photo, which may lie on its side or stand on its head."""

import cv2
import numpy as np
from jaxtyping import UInt8

from interlcm_jax.faces.align import large_enough
from interlcm_jax.faces.anchors import distinct
from interlcm_jax.faces.detect import Detector, Face

# Turns of the photo by 90 degrees against the clock, and how OpenCV makes them.
_TURNS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}
UPRIGHT = 45  # degrees: of faces turned no more, detectors find nearly all
SURE = 0.98  # the score that all but one in a hundred upright faces have, and few that are something else
MAX_OVERLAP = 0.4  # of two faces, intersection over union


def find_faces(photo: UInt8[np.ndarray, "H W 3"], detector: Detector) -> list[Face]:
    """The faces that are large enough to be restored, the best first.

    Detectors look for upright faces. Where no such face is found for sure, the photo is looked at turned by 90, 180 and
    270 degrees too, so that one without faces takes four times as long.
    """
    faces = large_enough(detector(photo))
    if any(abs(face.angle) < UPRIGHT and face.score >= SURE for face in faces):
        return faces
    for quarters, turn in _TURNS.items():
        found = large_enough(detector(cv2.rotate(photo, turn)))
        faces += [_turned_back(face, quarters, photo.shape[:2]) for face in found if face.score >= SURE]
    faces.sort(key=lambda face: -face.score)
    boxes = np.array([face.box for face in faces]).reshape(-1, 4)
    return [faces[i] for i in distinct(boxes, MAX_OVERLAP)]


def _turned_back(face: Face, quarters: int, shape: tuple[int, int]) -> Face:
    """A face found in a photo that was turned by so many quarters, in pixels of the photo of this height and width."""
    points = np.concatenate([face.box.reshape(2, 2), face.landmarks])
    # The last turn is undone first: the widths of what was turned.
    widths = (shape[1], shape[0], shape[1])[:quarters]
    for width in widths[::-1]:
        points = np.stack([width - 1 - points[:, 1], points[:, 0]], axis=1)
    corners = points[:2]
    return Face(np.concatenate([corners.min(0), corners.max(0)]), points[2:], face.score)
