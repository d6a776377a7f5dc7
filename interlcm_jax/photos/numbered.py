"""Photos with their faces numbered, to choose from."""

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from interlcm_jax.faces.detect import Detector, Face
from interlcm_jax.faces.select import FaceChoice, left_to_right
from interlcm_jax.imaging.io import Photo, read_photo, write_photo
from interlcm_jax.photos.plan import Job
from interlcm_jax.photos.search import search

# The longer side of a picture with numbers: a small photo is enlarged to the first, a large one reduced to the second.
SIDES = (1024, 3072)
# Heights of a number, in parts of the picture's longer side at the least and most, and else of its face.
LEAST, MOST, OF_FACE = 1 / 80, 1 / 24, 0.2
LINE = 1 / 500  # width of a box's line, in parts of the longer side
YELLOW, BLACK = (255, 225, 0), (0, 0, 0)
FONT = cv2.FONT_HERSHEY_SIMPLEX


def number_faces(job: Job, size: int, choice: FaceChoice, detector: Detector) -> list[Face]:
    """The faces of a photo that `choice.faces` chooses from, and a picture of the photo with their numbers.

    Args:
        job: the photo, and the picture to write; a photo without faces gets none.
        size: of the faces that the model takes, pixels.
        choice: size, number and score of the faces; which of them are chosen doesn't matter.
        detector: finds them.

    Returns:
        The faces in pixels of the photo, in order of their numbers.

    Raises:
        InterLCMError: the photo can't be read, or the picture can't be written.
    """
    photo = read_photo(job.source)
    faces = find_numbered(photo, size, choice, detector)
    if faces:
        write_photo(job.target, draw_numbers(photo.pixels, faces), dataclasses.replace(photo, alpha=None))
    return faces


def find_numbered(photo: Photo, size: int, choice: FaceChoice, detector: Detector) -> list[Face]:
    """The faces that `number_faces` gives, of a photo in memory."""
    _, enlargement, found = search(photo.pixels, size, choice, detector)
    return [_scaled(face, 1 / enlargement) for face in left_to_right(found)]


def draw_numbers(pixels: UInt8[np.ndarray, "H W 3"], faces: Sequence[Face]) -> UInt8[np.ndarray, "h w 3"]:
    """A photo, RGB, at a size to look at, with the boxes of its faces and their numbers, counted from 0."""
    longer = max(pixels.shape[:2])
    factor = min(max(longer, SIDES[0]), SIDES[1]) / longer
    picture = pixels.copy()
    if factor != 1:
        height, width = (max(1, round(side * factor)) for side in pixels.shape[:2])
        picture = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC if factor > 1 else cv2.INTER_AREA)
    boxes = [np.round(face.box * factor).astype(int) for face in faces]
    line = max(2, round(max(picture.shape) * LINE))
    for color, width in ((BLACK, 2 * line), (YELLOW, line)):
        for box in boxes:
            cv2.rectangle(picture, box[:2].tolist(), box[2:].tolist(), color, width)
    for number, box in enumerate(boxes):
        _write(picture, str(number), box)
    return picture


def _write(picture: UInt8[np.ndarray, "h w 3"], text: str, box: np.ndarray) -> None:
    """A number on a plate above its face, or below it where there is no room above, or else within its box."""
    size = np.array(picture.shape[1::-1])
    height = int(np.clip(OF_FACE * (box[3] - box[1]), LEAST * max(size), MOST * max(size)))
    width = max(2, height // 8)
    scale = cv2.getFontScaleFromHeight(FONT, height, width)
    (across, up), _ = cv2.getTextSize(text, FONT, scale, width)
    margin = height // 3
    plate = np.array([across, up]) + 2 * margin
    top = next((y for y in (box[1] - plate[1], box[3]) if 0 <= y <= size[1] - plate[1]), box[1])
    left, top = np.clip([box[0], top], 0, np.maximum(size - plate, 0)).tolist()
    cv2.rectangle(picture, (left, top), (left + int(plate[0]), top + int(plate[1])), YELLOW, cv2.FILLED)
    cv2.putText(picture, text, (left + margin, top + margin + up), FONT, scale, BLACK, width, cv2.LINE_AA)


def _scaled(face: Face, factor: float) -> Face:
    """The same face in a photo so many times as large; landmarks count from the center of the first pixel."""
    return Face(face.box * factor, (face.landmarks + 0.5) * factor - 0.5, face.score)
