"""NIQE once more, straight from the paper's formulas: NumPy and SciPy in float64, one block after the other."""

import numpy as np
from scipy.ndimage import correlate
from scipy.special import gamma

SHAPES = np.arange(200, 10_001) / 1000
RATIOS = gamma(2 / SHAPES) ** 2 / (gamma(1 / SHAPES) * gamma(3 / SHAPES))


def luma(image: np.ndarray) -> np.ndarray:
    """In whole levels; what lies between two of them but for rounding goes up."""
    return np.floor(16 + image @ np.array([65.481, 128.553, 24.966]) / 255 + 0.5 + 1e-9)


def normalized(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[-3:4, -3:4]
    window = np.exp(-(rows**2 + columns**2) / (2 * (7 / 6) ** 2))
    window /= window.sum()
    mean = correlate(x, window, mode="nearest")
    deviation = np.sqrt(np.abs(correlate(x**2, window, mode="nearest") - mean**2))
    # What is 0 but for rounding has no sign.
    gap = np.where(np.abs(x - mean) < 1e-9, 0, x - mean)
    return gap / (deviation + 1), deviation


def keys_cubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0))


def halving(length: int) -> np.ndarray:
    """MATLAB's imresize by a half along one axis, as a matrix."""
    matrix = np.zeros((length // 2, length))
    for row in range(length // 2):
        center = 2 * row + 0.5
        taps = np.arange(int(np.ceil(center - 4)), int(np.floor(center + 4)) + 1)
        weights = keys_cubic((taps - center) / 2)
        for tap, weight in zip(taps, weights / weights.sum(), strict=True):
            mirrored = -1 - tap if tap < 0 else 2 * length - 1 - tap if tap >= length else tap
            matrix[row, mirrored] += weight
    return matrix


def asymmetric_fit(x: np.ndarray) -> tuple[float, float, float]:
    """Shape, left and right width of an asymmetric generalized Gaussian (Lasmar et al. 2009)."""
    left, right = np.sqrt(np.mean(x[x < 0] ** 2)), np.sqrt(np.mean(x[x > 0] ** 2))
    skew = left / right
    ratio = np.mean(np.abs(x)) ** 2 / np.mean(x**2) * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = SHAPES[np.argmin((RATIOS - ratio) ** 2)]
    scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * scale, right * scale


def block_features(block: np.ndarray) -> list[float]:
    shape, left, right = asymmetric_fit(block)
    found = [shape, (left + right) / 2]
    for neighbor in (
        np.roll(block, 1, axis=1),
        np.roll(block, 1, axis=0),
        np.roll(np.roll(block, 1, axis=0), 1, axis=1),
        np.roll(np.roll(block, 1, axis=0), -1, axis=1),
    ):
        shape, left, right = asymmetric_fit(block * neighbor)
        found += [shape, (right - left) * gamma(2 / shape) / gamma(1 / shape), left, right]
    return found


def features(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each block the 36 features, and its sharpness."""
    x = luma(image)
    rows, columns = x.shape[0] // 96, x.shape[1] // 96
    x = x[: 96 * rows, : 96 * columns]
    half = halving(x.shape[0]) @ x @ halving(x.shape[1]).T
    (fine, deviation), (coarse, _) = normalized(x), normalized(half)
    found, sharpness = [], []
    for row in range(rows):
        for column in range(columns):
            of_block = [slice(96 * row, 96 * row + 96), slice(96 * column, 96 * column + 96)]
            of_half = [slice(48 * row, 48 * row + 48), slice(48 * column, 48 * column + 48)]
            found.append(block_features(fine[*of_block]) + block_features(coarse[*of_half]))
            sharpness.append(deviation[*of_block].mean())
    return np.array(found), np.array(sharpness)


def distance(of_blocks: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> float:
    gap = mean - of_blocks.mean(axis=0)
    return np.sqrt(gap @ np.linalg.solve((covariance + np.cov(of_blocks.T)) / 2, gap))
