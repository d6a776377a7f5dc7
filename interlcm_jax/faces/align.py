"""How faces are turned upright, eyes, nose and mouth onto fixed places, and which are large enough for it."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from interlcm_jax.errors import InterLCMError
from interlcm_jax.faces.detect import Face

TEMPLATE_SIZE = 512
# Pixels of the eyes, the nose and the corners of the mouth in a face aligned as FFHQ's are (FaceXLib's numbers).
TEMPLATE = np.array(
    [
        [192.98138, 239.94708],
        [318.90277, 240.1936],
        [256.63416, 314.01935],
        [201.26117, 371.41043],
        [313.08905, 371.15118],
    ]
)
# What an aligned face shows beyond the photo; the release has (135, 133, 132), of blue, green and red.
BORDER = (132, 133, 135)
MIN_EYE_DISTANCE = 5.0


def large_enough(faces: Sequence[Face], min_eye_distance: float = MIN_EYE_DISTANCE) -> list[Face]:
    """The faces with eyes far enough apart, in pixels: smaller ones hold nothing to restore.

    Faces without finite landmarks go too, so what is left can be aligned.
    """
    return [face for face in faces if np.isfinite(face.landmarks).all() and face.eye_distance >= min_eye_distance]


def template(size: int) -> Float[np.ndarray, "5 2"]:
    """Where the landmarks of an aligned face are, in pixels counted from the center of the first."""
    return (TEMPLATE + 0.5) * (size / TEMPLATE_SIZE) - 0.5


def alignment(landmarks: Float[np.ndarray, "5 2"], size: int) -> Float[np.ndarray, "2 3"]:
    """The turn, scaling and shift that take a face to the template: `matrix @ (x, y, 1)`.

    It fits the better part of the landmarks (least median of squares), the same way each time.

    Raises:
        InterLCMError: the landmarks don't tell how the face is turned, as they all lie in one place or aren't finite;
            `large_enough` leaves no such face.
    """
    matrix = None
    if np.isfinite(landmarks).all():
        matrix, _ = cv2.estimateAffinePartial2D(np.asarray(landmarks, float), template(size), method=cv2.LMEDS)
    if matrix is None or not np.isfinite(matrix).all() or not matrix.any():
        raise InterLCMError(f"the face with landmarks {np.round(landmarks, 1).tolist()} can't be aligned: leave it out")
    return matrix


def align(
    photo: UInt8[np.ndarray, "H W 3"], landmarks: Float[np.ndarray, "5 2"], size: int = TEMPLATE_SIZE
) -> tuple[UInt8[np.ndarray, "size size 3"], Float[np.ndarray, "2 3"]]:
    """Cuts a face out of a photo, aligned.

    Args:
        photo: the photo.
        landmarks: the face's, in the photo's pixels.
        size: height and width of the result.

    Returns:
        The aligned face, and the matrix that takes the photo's pixels to its.

    Raises:
        InterLCMError: as for `alignment`.
    """
    matrix = alignment(landmarks, size)
    return cut_out(photo, matrix, size), matrix


def cut_out(
    photo: UInt8[np.ndarray, "H W 3"], matrix: Float[np.ndarray, "2 3"], size: int
) -> UInt8[np.ndarray, "size size 3"]:
    """The aligned face that a matrix of `alignment` takes out of a photo."""
    source, linear, shift = photo, matrix[:, :2], matrix[:, 2]
    shrinking = int(1 / np.sqrt(np.linalg.det(linear)))
    if shrinking > 1:
        # Warping looks at four pixels: from a much larger face it would pick some and skip others.
        height, width = photo.shape[:2]
        small = (max(1, width // shrinking), max(1, height // shrinking))
        source = cv2.resize(photo, small, interpolation=cv2.INTER_AREA)
        factors = np.array([width, height]) / small
        linear, shift = linear * factors, shift + linear @ (factors / 2 - 0.5)
    return cv2.warpAffine(
        source, np.column_stack([linear, shift]), (size, size), borderMode=cv2.BORDER_CONSTANT, borderValue=BORDER
    )
