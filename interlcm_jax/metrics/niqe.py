"""NIQE by BasicSR's protocol: how far an image's statistics are from those of pristine photos; lower is better.

No reference is needed, but the pristine statistics are, and those of the paper's authors aren't ours to ship: BasicSR
has them in `basicsr/metrics/niqe_pris_params.npz` (in its repository and its source package). Only with that file are
numbers comparable with published ones. A low NIQE isn't yet a good face: it likes grain and texture.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Array, Float, UInt8

from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.atomic import whole_file
from interlcm_jax.metrics.niqe_features import NUM_FEATURES, RADIUS, SIGMA, block_moments, features

PUBLISHED_FILE = "niqe_pris_params.npz"
SHARPNESS = 0.75  # of the sharpest block of a pristine photo (section II-B)
_SHAPES = {
    "mu_pris_param": (1, NUM_FEATURES),
    "cov_pris_param": (NUM_FEATURES, NUM_FEATURES),
    "gaussian_window": (2 * RADIUS + 1, 2 * RADIUS + 1),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Pristine:
    """The normal distribution of the features of pristine blocks.

    Attributes:
        mean: in float64, as the covariance is.
        covariance: symmetric.
    """

    mean: Float[np.ndarray, "36"]
    covariance: Float[np.ndarray, "36 36"]


def niqe(images: UInt8[Array | np.ndarray, "B H W 3"], pristine: Pristine) -> Float[np.ndarray, "B"]:
    """The distance of each image's statistics from pristine ones (equation 10), in float64.

    Luma in whole levels, no border cropped, blocks of 96 pixels side by side. NaN where fewer than two blocks have
    statistics: those of one brightness have none.

    Equal to BasicSR's own code to 2e-6 of itself on photos without even areas, and to 5e-4 on those with some: there
    its variance, E[x^2] - E[x]^2 in float32, is mostly rounding. The same code in float64 is off its own by up to 2e-2
    then, since in even areas rounding decides which values are above their mean.

    Args:
        images: RGB, of one size.
        pristine: what they are compared with.

    Raises:
        InterLCMError: the images aren't uint8 (B, H, W, 3), or hold less than two blocks.
    """
    of_blocks = features(block_moments(images))
    if of_blocks.shape[1] < 2:
        raise InterLCMError(f"NIQE needs two blocks of 96x96 pixels or more, and images {images.shape[1:3]} hold one")
    return distances(of_blocks, pristine)


def distances(of_blocks: Float[np.ndarray, "B blocks 36"], pristine: Pristine) -> Float[np.ndarray, "B"]:
    """`niqe` of each image's `features`."""
    return np.array([_distance(image, pristine) for image in of_blocks])


def fit_pristine(photos: Iterable[UInt8[np.ndarray, "_ _ 3"]], *, sharpness_threshold: float = SHARPNESS) -> Pristine:
    """Fits pristine statistics to good photos of one's own; distances from them compare with no published ones.

    As in the paper, only the blocks count that are more than `sharpness_threshold` times as sharp as their photo's
    sharpest. The authors took 125 photos.

    Args:
        photos: RGB, of any sizes, free of distortion.
        sharpness_threshold: 0 takes nearly all the blocks.

    Raises:
        InterLCMError: a photo isn't uint8 or is smaller than a block; or the blocks are fewer than 37, too few for
            the covariance of 36 features.
    """
    chosen = [np.zeros((0, NUM_FEATURES))]
    for photo in photos:
        moments = block_moments(np.asarray(photo)[None])
        sharpness = np.asarray(moments.sharpness)[0]
        chosen.append(features(moments)[0][sharpness > sharpness_threshold * sharpness.max()])
    of_blocks = _whole(np.concatenate(chosen))
    if len(of_blocks) <= NUM_FEATURES:
        raise InterLCMError(f"{len(of_blocks)} sharp blocks are too few for NIQE's statistics; give more photos")
    return Pristine(of_blocks.mean(axis=0), np.cov(of_blocks, rowvar=False))


def load_pristine(path: str | Path) -> Pristine:
    """Reads pristine statistics: BasicSR's `niqe_pris_params.npz`, or what `save_pristine` wrote.

    Raises:
        InterLCMError: there is no such file, it isn't whole, or its arrays aren't these statistics.
    """
    path = Path(path)
    if not path.is_file():
        raise InterLCMError(f"{path}: no such file. NIQE takes {PUBLISHED_FILE} of BasicSR, from its basicsr/metrics")
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name], np.float64) for name in file.files}
    except Exception as error:  # a damaged file makes NumPy and zipfile raise nearly anything
        raise InterLCMError(
            f"{path}: not a whole NumPy .npz file ({error}); is it BasicSR's {PUBLISHED_FILE}?"
        ) from error
    shapes = {name: array.shape for name, array in arrays.items()}
    if shapes != _SHAPES:
        raise InterLCMError(f"{path}: holds {shapes} instead of NIQE's statistics, {_SHAPES}")
    mean, covariance, window = (arrays[name] for name in _SHAPES)
    if not all(np.isfinite(a).all() for a in (mean, covariance)) or not np.allclose(covariance, covariance.T):
        raise InterLCMError(f"{path}: a mean and covariance of NIQE's are finite and symmetric, but these aren't")
    if not np.allclose(window, _window(), rtol=0, atol=1e-6):
        raise InterLCMError(f"{path}: made with another window than NIQE's Gaussian of deviation 7/6")
    return Pristine(mean[0], covariance)


def save_pristine(path: Path, pristine: Pristine) -> None:
    """Writes pristine statistics as BasicSR keeps them; the file appears whole or not at all."""
    arrays = (pristine.mean[None], pristine.covariance, _window())
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **dict(zip(_SHAPES, arrays, strict=True)))


def _distance(of_blocks: Float[np.ndarray, "blocks 36"], pristine: Pristine) -> float:
    """Of one image. Features that just some blocks lack enter its mean all the same, as in BasicSR."""
    whole = _whole(of_blocks)
    if len(whole) < 2:
        return float("nan")
    gap = pristine.mean - np.nanmean(of_blocks, axis=0)
    inverse = np.linalg.pinv((pristine.covariance + np.cov(whole, rowvar=False)) / 2)
    return float(np.sqrt(gap @ inverse @ gap))


def _whole(of_blocks: Float[np.ndarray, "blocks 36"]) -> Float[np.ndarray, "whole 36"]:
    return of_blocks[~np.isnan(of_blocks).any(axis=1)]


def _window() -> Float[np.ndarray, "7 7"]:
    taps = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / SIGMA) ** 2)
    return np.outer(taps, taps) / taps.sum() ** 2
