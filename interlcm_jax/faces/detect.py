"""What a face detector is: a function from a photo to its faces."""

import dataclasses
from collections.abc import Callable
from typing import Protocol, Self, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8


@dataclasses.dataclass(frozen=True, eq=False)
class Face:
    """A face in a photo.

    Attributes:
        box: left, top, right, bottom, in pixels.
        landmarks: x and y of the eyes, the nose and the corners of the mouth, in pixels; left before right as seen
            with the face upright.
        score: the detector's confidence, 0 to 1.
    """

    box: Float[np.ndarray, "4"]
    landmarks: Float[np.ndarray, "5 2"]
    score: float

    @property
    def size(self) -> float:
        """Pixels of its box's longer side."""
        return float((self.box[2:] - self.box[:2]).max())

    @property
    def eye_distance(self) -> float:
        """Pixels from eye to eye."""
        return float(np.linalg.norm(self.landmarks[1] - self.landmarks[0]))

    @property
    def angle(self) -> float:
        """Degrees that it is turned clockwise, -180 to 180: the slope from eye to eye."""
        x, y = self.landmarks[1] - self.landmarks[0]
        return float(np.degrees(np.arctan2(y, x)))


# Any function from an upright RGB photo to the faces in it can be put in.
Detector = Callable[[UInt8[np.ndarray, "H W 3"]], list[Face]]


@runtime_checkable
class AdjustableDetector(Protocol):
    """A detector whose bound on the score can be moved."""

    def with_threshold(self, score: float) -> Self:
        """The same detector, whose faces score more than this, 0 to 1."""


def scoring_above(detector: Detector, threshold: float | None) -> Detector:
    """The detector with this bound on its faces' scores; None is the bound that it has.

    Any function that isn't adjustable keeps a bound of its own that is higher.
    """
    if threshold is None:
        return detector
    if isinstance(detector, AdjustableDetector):
        return detector.with_threshold(threshold)
    return lambda photo: [face for face in detector(photo) if face.score > threshold]
