"""Which pixels of an aligned face are head, where no face parsing network is at hand: from its landmarks and colors."""

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

# The head is looked for in a copy of this size, as its outline is smooth and the time goes with the pixels.
SIZE = 128
ROUNDS = 2
# Half axes of ellipses about the face, in distances from the eyes to the mouth: to the sides, up and down from the
# middle between eyes and mouth. What is within the first is face, what is beyond the last is not.
CERTAIN = (0.95, 1.3, 1.15)
LIKELY = (1.45, 1.85, 1.4)
POSSIBLE = (1.7, 2.0, 1.5)
# A turned face shows more of the side that the nose points away from: its middle is moved by so much of the nose's way.
TURN = 0.8
# Levels of 255 of the difference, of widths of SIZE / BLUR pixels, from which on the input wins, and wins wholly.
BLUR = 40
DEPARTURE = (10, 30)
# Over how much of the size the mask rises.
SOFTNESS = 0.025

Face = UInt8[np.ndarray, "S S 3"]


def head_mask(lq: Face, restored: Face, landmarks: Float[np.ndarray, "5 2"]) -> Float32[np.ndarray, "S S"]:
    """How much of each pixel of a restored face to paste: 1 on the face, 0 on what isn't head.

    Around the face, hair and ears are told from the background by their colors (GrabCut, Rother et al. 2004); there the
    input wins too where the restoration shows something else than it.

    Args:
        lq: the aligned face before it was restored, RGB.
        restored: after.
        landmarks: of the eyes, the nose and the corners of the mouth, in pixels of the aligned face.
    """
    size = lq.shape[0]
    points = (landmarks + 0.5) * (SIZE / size) - 0.5
    small, after = (cv2.resize(face, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for face in (lq, restored))
    certain, likely, possible = (_distance(points, axes) for axes in (CERTAIN, LIKELY, POSSIBLE))
    head = _cut(small, certain < 1, likely < 1, possible < 1)
    gap = cv2.GaussianBlur(after.astype(np.float32) - small, (0, 0), SIZE / BLUR)
    departure = _ramp(np.abs(gap).max(-1), *DEPARTURE)
    face = _ramp(certain, 1.2, 0.95)
    opacity = np.maximum(face, head * (1 - departure) * _ramp(possible, 1, 0.85))
    opacity = cv2.GaussianBlur(opacity.astype(np.float32), (0, 0), SOFTNESS * SIZE)
    return cv2.resize(opacity, (size, size), interpolation=cv2.INTER_LINEAR).clip(0, 1)


def _distance(points: Float[np.ndarray, "5 2"], axes: tuple[float, float, float]) -> Float[np.ndarray, "s s"]:
    """How far each pixel is from the face's middle, 1 on the ellipse of these half axes."""
    eyes, mouth = points[:2].mean(0), points[3:].mean(0)
    down = mouth - eyes
    # A face looking up or down has eyes and mouth closer, one in profile its eyes: the larger tells its size.
    length = max(np.linalg.norm(down), np.linalg.norm(points[1] - points[0]), 1.0)
    down = down / max(np.linalg.norm(down), 1e-6)
    right = np.array([down[1], -down[0]])
    middle = (eyes + mouth) / 2
    middle = middle - TURN * ((points[2] - middle) @ right) * right
    y, x = np.mgrid[:SIZE, :SIZE].astype(float)
    offset = np.stack([x, y], axis=-1) - middle
    across, along = offset @ right, offset @ down
    side, up, below = (length * axis for axis in axes)
    return np.hypot(across / side, along / np.where(along < 0, up, below))


def _cut(
    face: UInt8[np.ndarray, "s s 3"],
    certain: np.ndarray,
    likely: np.ndarray,
    possible: np.ndarray,
) -> Float32[np.ndarray, "s s"]:
    """1 where GrabCut sees the head, 0 elsewhere."""
    labels = np.where(likely, cv2.GC_PR_FGD, cv2.GC_PR_BGD)
    labels = np.where(possible, labels, cv2.GC_BGD)
    labels = np.where(certain, cv2.GC_FGD, labels).astype(np.uint8)
    if not (labels != cv2.GC_BGD).any() or not (labels == cv2.GC_BGD).any():
        return possible.astype(np.float32)
    # Its clustering draws random starts: the same for every face.
    cv2.setRNGSeed(0)
    cv2.grabCut(face, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), ROUNDS, cv2.GC_INIT_WITH_MASK)
    return np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)


def _ramp(x: np.ndarray, zero: float, one: float) -> np.ndarray:
    """From 0 at `zero` to 1 at `one`, smoothly."""
    t = np.clip((x - zero) / (one - zero), 0, 1)
    return t * t * (3 - 2 * t)
