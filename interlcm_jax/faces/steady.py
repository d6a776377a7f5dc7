"""What jitters from frame to frame, steadied: places of a face, and pictures of it."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from interlcm_jax.errors import InterLCMError
from interlcm_jax.faces.align import alignment
from interlcm_jax.faces.track import face_size

# Frames: widths of the windows that motion is a parabola in, for slow and for fast motion, and their reach in widths.
SLOW, FAST, REACH = 5.0, 1.5, 3
# By what multiple of the landmarks' noise, and parts of the face besides, the two must differ for the fast one to win.
FASTER, LEAST_GAP = 2.0, 0.01
# Curvature is held back by so much: at a track's ends it would follow the detector's noise.
RIDGE = (0.0, 1e-3, 0.02)
# Frames are fitted so many at a time, which bounds the memory.
BLOCK = 1024
# Residuals, in medians, from which on a frame counts half.
OUTLIER = 3.0

# Frames before and after whose pictures of a face are averaged, and the width of their weights.
PICTURES, PICTURES_SIGMA = 5, 4.0
# Likeness is judged in a copy this many times smaller, in squared levels of 255 over a neighborhood of so many pixels.
SMALLER, NEIGHBORHOOD = 4, 1.5
# Differences that are alike in any case, squared levels.
ALIKE = 4.0


def smooth(
    values: Float[np.ndarray, "N K"], weights: Float[np.ndarray, " N"], sigma: float = SLOW
) -> Float[np.ndarray, "N K"]:
    """Values over time without their jitter and without lag: a parabola through each frame's neighbors on both sides.

    Args:
        values: a row for each frame.
        weights: how far each frame is trusted; 0 where nothing is known: its row is made up from the others.
        sigma: frames, the width of the neighborhood.
    """
    reach = round(REACH * sigma)
    offsets = np.arange(-reach, reach + 1)
    t = offsets / sigma
    powers = np.stack([np.ones_like(t), t, t * t], axis=1)
    kernel = np.exp(-0.5 * t * t)
    result = np.empty_like(values)
    for first in range(0, len(values), BLOCK):
        places = np.arange(first, min(first + BLOCK, len(values)))[:, None] + offsets
        inside = (places >= 0) & (places < len(values))
        places = places.clip(0, len(values) - 1)
        w = kernel * inside * weights[places]
        moments = np.einsum("nw,wa,wb->nab", w, powers, powers)
        moments += np.diag(RIDGE) * w.sum(1)[:, None, None] + 1e-9 * np.eye(3)
        sums = np.einsum("nw,wa,nwk->nak", w, powers, values[places])
        result[first : first + BLOCK] = np.linalg.solve(moments, sums)[:, 0]
    return result


def steady_places(
    landmarks: Float[np.ndarray, "N 5 2"], found: Bool[np.ndarray, " N"], size: int
) -> tuple[Float[np.ndarray, "N 2 3"], Float[np.ndarray, "N 5 2"]]:
    """How a followed face is cut out of each frame, steadily.

    Args:
        landmarks: of its frames, in pixels; any values where it wasn't found.
        found: where it was.
        size: of the aligned face.

    Returns:
        For each frame the matrix to the aligned face's pixels, as `align.alignment` gives it, and the landmarks.
    """
    known = np.flatnonzero(found)
    poses = np.stack([_pose(landmarks[i], size) for i in known])
    rows = np.concatenate([poses, landmarks[known].reshape(-1, 10)], axis=1)
    # Between frames where it was found, a lost one lies on a straight line: a start for those with no near neighbors.
    frames = np.arange(len(found))
    rows = np.stack([np.interp(frames, known, column) for column in rows.T], axis=1)
    weights = np.where(found, 1.0, 0.05)
    sizes = np.array([face_size(points) for points in rows[:, 4:].reshape(-1, 5, 2)])
    residuals = _gaps(rows, smooth(rows, weights), sizes)
    weights = weights / (1 + (residuals / (OUTLIER * np.median(residuals[known]) + 1e-3)) ** 2)
    slow, fast = smooth(rows, weights), smooth(rows, weights, FAST)
    noise = np.median(_gaps(rows, fast, sizes)[known])
    gaps = (_gaps(slow, fast, sizes) / (FASTER * noise + LEAST_GAP)) ** 2
    smoothed = slow + (fast - slow) * (gaps / (1 + gaps))[:, None]
    return _matrices(smoothed[:, :4], size), smoothed[:, 4:].reshape(-1, 5, 2)


def _gaps(
    a: Float[np.ndarray, "N 14"], b: Float[np.ndarray, "N 14"], sizes: Float[np.ndarray, " N"]
) -> Float[np.ndarray, " N"]:
    """Mean distance of the landmarks in each frame, in sizes of the face."""
    return np.linalg.norm((a - b)[:, 4:].reshape(-1, 5, 2), axis=2).mean(1) / sizes


def _pose(landmarks: Float[np.ndarray, "5 2"], size: int) -> Float[np.ndarray, "4"]:
    """Scale times cosine and sine of the turn from the aligned face to the frame, and its middle in the frame.

    In these the face's motion is smooth, and their mean is a place of the face again.
    """
    inverse = cv2.invertAffineTransform(alignment(landmarks, size))
    middle = inverse @ np.array([(size - 1) / 2, (size - 1) / 2, 1])
    return np.array([inverse[0, 0], inverse[1, 0], *middle])


def _matrices(poses: Float[np.ndarray, "N 4"], size: int) -> Float[np.ndarray, "N 2 3"]:
    matrices = np.empty((len(poses), 2, 3))
    for matrix, (cos, sin, x, y) in zip(matrices, poses, strict=True):
        if not cos * cos + sin * sin > 0:
            raise InterLCMError("a face of the video can't be aligned: its landmarks lie in one place")
        linear = np.array([[cos, -sin], [sin, cos]])
        shift = np.array([x, y]) - linear @ np.full(2, (size - 1) / 2)
        matrix[:] = cv2.invertAffineTransform(np.column_stack([linear, shift]))
    return matrices


def steady_picture(pictures: Sequence[UInt8[np.ndarray, "S S 3"]], middle: int) -> UInt8[np.ndarray, "S S 3"]:
    """One of several aligned pictures of a face, without the noise that changes from one to the next.

    Each pixel is a mean over the pictures, in which those count little that show something else there: noise goes, and
    a mouth that opens, a blink, a hand before the face stay as sharp in time as they were.

    Args:
        pictures: RGB, consecutive in time.
        middle: which one is wanted.
    """
    wanted = pictures[middle]
    if len(pictures) == 1:
        return wanted
    gaps = [_gap(picture, wanted) for i, picture in enumerate(pictures) if i != middle]
    nearest = [gaps[i] for i in (middle - 1, middle) if 0 <= i < len(gaps)]
    # What most of the face differs by from its nearest neighbor is noise, which all of them have.
    noise = float(np.median(np.min(nearest, axis=0)))
    total, mean = np.ones(wanted.shape[:2], np.float32), wanted.astype(np.float32)
    for i, gap in zip((i for i in range(len(pictures)) if i != middle), gaps, strict=True):
        weight = np.exp(-np.maximum(gap - 2 * noise, 0) / (noise + ALIKE)) * _closeness(i - middle)
        weight = cv2.resize(weight.astype(np.float32), wanted.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        total += weight
        mean += weight[..., None] * pictures[i]
    return np.rint(mean / total[..., None]).astype(np.uint8)


def steady_mask(masks: Sequence[Float32[np.ndarray, "S S"]], middle: int) -> Float32[np.ndarray, "S S"]:
    """One of several masks of a face, consecutive in time, less what jumps between them: their weighted mean."""
    weights = [_closeness(i - middle) for i in range(len(masks))]
    return np.average(np.stack(masks), axis=0, weights=weights).astype(np.float32)


def over_steady(
    face: UInt8[np.ndarray, "S S 3"], lq: UInt8[np.ndarray, "S S 3"], mask: Float32[np.ndarray, "S S"]
) -> tuple[UInt8[np.ndarray, "S S 3"], Float32[np.ndarray, "S S"]]:
    """What to paste, and how much of it, so that the input that a mask lets through has lost its noise too.

    Where at least half of the restored face is seen, the rest is the steady picture; farther out that gives way to the
    frame itself.

    Args:
        face: restored, RGB.
        lq: the steady picture that it was restored from.
        mask: how much of the face is seen, 0 to 1.
    """
    opacity = np.minimum(1, 2 * mask)
    share = np.divide(mask, opacity, out=np.full_like(mask, 0.5), where=opacity > 0)[..., None]
    return np.rint(lq + (face.astype(np.float32) - lq) * share).astype(np.uint8), opacity


def _closeness(frames: int) -> float:
    return float(np.exp(-0.5 * (frames / PICTURES_SIGMA) ** 2))


def _gap(a: UInt8[np.ndarray, "S S 3"], b: UInt8[np.ndarray, "S S 3"]) -> Float32[np.ndarray, "s s"]:
    """How much two pictures differ about each pixel of a smaller copy, in squared levels."""
    size = (max(1, a.shape[1] // SMALLER), max(1, a.shape[0] // SMALLER))
    small = [cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.float32) for picture in (a, b)]
    return cv2.GaussianBlur(((small[0] - small[1]) ** 2).mean(-1), (0, 0), NEIGHBORHOOD)
