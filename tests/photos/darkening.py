"""A model without networks and a detector that knows where faces are, for tests of everything around them."""

import numpy as np

from interlcm_jax import InterLCM
from interlcm_jax.faces.align import template
from interlcm_jax.faces.detect import Face
from interlcm_jax.model_folder import ModelConfig

CONFIG = ModelConfig.miniature()
SIZE = CONFIG.image_size


class Darkening(InterLCM):
    """Halves every face it is given, or gives what `answer` does; keeps the options it was called with."""

    def __init__(self, answer=lambda face: face // 2):
        self.config, self.answer, self.options = CONFIG, answer, []

    def restore_all(self, faces, **options):
        self.options.append(options)
        return map(self.answer, faces)


def face(left: float, top: float, side: float, turn: float = 0) -> Face:
    """A face whose aligned square is this one, turned about its middle by so many degrees."""
    points = template(SIZE) * (side / SIZE)
    middle, angle = side / 2, np.deg2rad(turn)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = (points - middle) @ rotation.T + middle + [left, top]
    return Face(np.array([left, top, left + side, top + side], float), landmarks, 1.0)


def sharp_face() -> np.ndarray:
    """A square of few, sharp lines."""
    lines = np.full((SIZE, SIZE, 3), 120, np.uint8)
    lines[::12] = 220
    return lines


def finding(*faces: Face):
    """A detector that always finds these, and keeps the photos it saw."""
    seen = []

    def detector(photo):
        seen.append(photo)
        return list(faces)

    detector.seen = seen
    return detector
