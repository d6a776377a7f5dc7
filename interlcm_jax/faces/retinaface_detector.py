"""RetinaFace as a face detector: whole photos in, faces out."""

import copy
from pathlib import Path
from typing import Self

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, UInt8

from interlcm_jax.errors import InterLCMError
from interlcm_jax.faces.anchors import decode_boxes, decode_landmarks, distinct, make_anchors
from interlcm_jax.faces.detect import Face
from interlcm_jax.faces.optional import load_optional
from interlcm_jax.faces.retinaface import STRIDES, RetinaFace, RetinaFaceConfig, prepare
from interlcm_jax.files.safetensors import open_safetensors
from interlcm_jax.model_folder import weights_file
from interlcm_jax.runtime.compiler_options import jit

NAME = "retinaface"  # of its file in a model folder


class RetinaFaceDetector:
    """A `Detector`: finds the faces of a photo, best score first. Any number of threads may call it.

    A photo is resized so that its short side has at least `short_side` pixels and its long side at most the last of
    `padded_sides`, and then padded to two of `padded_sides`: no more than len(padded_sides)² programs are ever
    compiled. What is padded counts as what is beyond the photo's border, so results depend on it by rounding only.

    Args:
        network: the network, with its weights.
        min_score: faces must score more, 0 to 1.
        max_overlap: intersection over union above which two boxes are one face.
        short_side: photos with a shorter side are enlarged to it, pixels.
        padded_sides: the heights and widths that the network runs at, rising, multiples of 32 pixels.

    Raises:
        InterLCMError: `padded_sides` aren't such.
    """

    def __init__(
        self,
        network: RetinaFace,
        *,
        min_score: float = 0.97,
        max_overlap: float = 0.4,
        short_side: int = 640,
        padded_sides: tuple[int, ...] = (640, 864, 1152, 1536, 2048),
    ):
        if (
            not padded_sides
            or any(side % STRIDES[-1] for side in padded_sides)
            or list(padded_sides) != sorted(padded_sides)
        ):
            raise InterLCMError(f"padded_sides are {padded_sides}, but must be rising multiples of {STRIDES[-1]}")
        self.graph, self.weights = nnx.split(network)
        self.min_score, self.max_overlap = min_score, max_overlap
        self.short_side, self.padded_sides = short_side, padded_sides

    def __call__(self, photo: UInt8[np.ndarray, "H W 3"]) -> list[Face]:
        """The faces in an upright RGB photo; their landmarks are left before right as seen in the picture."""
        resized = self._resized(photo)
        scores, boxes, landmarks = self._predict(resized)
        found = np.flatnonzero(scores > self.min_score)
        found = found[np.argsort(-scores[found], kind="stable")]
        found = found[distinct(boxes[found], self.max_overlap)]
        # The two ratios differ a little, since both sides are whole pixels.
        scale = np.array([old / new for old, new in zip(photo.shape[1::-1], resized.shape[1::-1], strict=True)])
        return [Face(boxes[i] * np.tile(scale, 2), landmarks[i] * scale, float(scores[i])) for i in found]

    def with_threshold(self, score: float) -> Self:
        """The same network, whose faces score more than this, 0 to 1."""
        adjusted = copy.copy(self)
        adjusted.min_score = score
        return adjusted

    def _resized(self, photo: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
        short, long = sorted(photo.shape[:2])
        factor = min(max(self.short_side / short, 1), self.padded_sides[-1] / long)
        if factor == 1:
            return photo
        height, width = (max(round(side * factor), 1) for side in photo.shape[:2])
        return cv2.resize(photo, (width, height), interpolation=cv2.INTER_LINEAR if factor > 1 else cv2.INTER_AREA)

    def _predict(
        self, pixels: UInt8[np.ndarray, "h w 3"]
    ) -> tuple[Float[np.ndarray, "A"], Float[np.ndarray, "A 4"], Float[np.ndarray, "A 5 2"]]:
        """Every anchor's score, box and landmarks, in pixels of the resized photo."""
        size = np.array(pixels.shape[:2], np.int32)
        padded = [next(side for side in self.padded_sides if side >= length) for length in size]
        frame = np.zeros((*padded, 3), np.uint8)
        frame[: size[0], : size[1]] = pixels
        return jax.device_get(_predict(self.graph, self.weights, frame, size))


def load_retinaface(
    folder: Path,
    *,
    config: RetinaFaceConfig | None = None,
    dtype: DTypeLike = "float32",
    **options: object,
) -> RetinaFaceDetector | None:
    """The detector of a model folder, or None where the folder holds no RetinaFace.

    Args:
        folder: the model folder.
        config: the network's sizes; None are those of the published network that the weights' names are of.
        dtype: dtype of the weights and the computation.
        **options: those of `RetinaFaceDetector`.

    Raises:
        WeightsError: the weights don't fit the sizes, or aren't whole or finite; all are named.
    """
    if not (path := weights_file(folder, NAME)).is_file():
        return None
    config = config or RetinaFaceConfig.published(open_safetensors(path))
    return RetinaFaceDetector(load_optional(folder, NAME, RetinaFace, config, dtype), **options)


@jit(static_argnums=0)
def _predict(
    graph: nnx.GraphDef[RetinaFace], weights: nnx.State, frame: UInt8[Array, "H W 3"], size: Int[Array, "2"]
) -> tuple[Float[Array, "A"], Float[Array, "A 4"], Float[Array, "A 5 2"]]:
    network = nnx.merge(graph, weights)
    height, width = frame.shape[:2]
    inside = (jnp.arange(height) < size[0])[:, None] & (jnp.arange(width) < size[1])[None]
    inside = inside[None, ..., None].astype(jnp.float32)
    predictions = network(prepare(frame[None].astype(jnp.float32)), inside)
    anchors = jnp.asarray(make_anchors(network.config, height, width))
    boxes, landmarks = (x.astype(jnp.float32) for x in (predictions.boxes, predictions.landmarks))
    return (
        predictions.scores[0],
        decode_boxes(network.config, boxes, anchors)[0],
        decode_landmarks(network.config, landmarks, anchors)[0],
    )
