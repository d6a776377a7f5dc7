"""Anchors of RetinaFace: where they stand, what is predicted relative to them, and which predictions are one face."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from interlcm_jax.faces.retinaface import LANDMARKS, STRIDES, RetinaFaceConfig


def make_anchors(config: RetinaFaceConfig, height: int, width: int) -> Float[np.ndarray, "A 4"]:
    """Center x and y, width and height of every anchor of a photo of this size, in pixels.

    Level by level, finest first, row by row, smallest first at each position. The photo's size may be any: a level's
    last position then reaches beyond the border.
    """
    sizes = np.reshape(config.anchor_sizes, (len(STRIDES), -1))
    levels = []
    for stride, sides in zip(STRIDES, sizes, strict=True):
        y, x = ((np.arange(-(-length // stride)) + 0.5) * stride for length in (height, width))
        y, x, side = np.meshgrid(y, x, sides, indexing="ij")
        levels.append(np.stack([x, y, side, side], axis=-1).reshape(-1, 4))
    return np.concatenate(levels).astype(np.float32)


def decode_boxes(
    config: RetinaFaceConfig, boxes: Float[Array, "B A 4"], anchors: Float[Array, "A 4"]
) -> Float[Array, "B A 4"]:
    """Left, top, right and bottom, in pixels, of boxes predicted relative to their anchors (as SSD does)."""
    anchors = anchors[None]
    center = anchors[..., :2] + config.center_variance * boxes[..., :2] * anchors[..., 2:]
    half = 0.5 * anchors[..., 2:] * jnp.exp(config.size_variance * boxes[..., 2:])
    return jnp.concatenate([center - half, center + half], axis=-1)


def decode_landmarks(
    config: RetinaFaceConfig, landmarks: Float[Array, "B A 10"], anchors: Float[Array, "A 4"]
) -> Float[Array, "B A 5 2"]:
    """x and y of the landmarks, in pixels: eyes, nose, corners of the mouth, left before right as seen."""
    offsets = landmarks.reshape(*landmarks.shape[:2], LANDMARKS, 2)
    anchors = anchors[None, :, None]
    return anchors[..., :2] + config.center_variance * offsets * anchors[..., 2:]


def distinct(boxes: Float[np.ndarray, "N 4"], max_overlap: float) -> list[int]:
    """Which boxes to keep (non-maximum suppression): each overlaps every better one at most so much.

    Args:
        boxes: left, top, right and bottom, in pixels (both borders belong to the box), best first.
        max_overlap: intersection over union above which two boxes are one face, 0 to 1.
    """
    sizes = boxes[:, 2:] - boxes[:, :2] + 1
    areas = sizes.prod(axis=1)
    kept, left = [], np.arange(len(boxes))
    while len(left):
        best, left = left[0], left[1:]
        kept.append(int(best))
        shared = np.minimum(boxes[best, 2:], boxes[left, 2:]) - np.maximum(boxes[best, :2], boxes[left, :2]) + 1
        intersection = np.maximum(shared, 0).prod(axis=1)
        left = left[intersection <= max_overlap * (areas[best] + areas[left] - intersection)]
    return kept
