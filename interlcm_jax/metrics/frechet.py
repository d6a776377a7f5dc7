"""The Fréchet distance of two sets of features, which with `inception`'s is FID.

Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium" (NeurIPS 2017,
arXiv 1706.08500), equation 6. All of it on the host, in float64.
"""

import dataclasses
import hashlib
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Array, Float

from interlcm_jax.convert.pickles import read_plain
from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.atomic import whole_file
from interlcm_jax.metrics.weights import FFHQ


@dataclasses.dataclass(frozen=True, eq=False)
class Statistics:
    """Mean and covariance of a set of features. Sets of any sizes can be merged, in any order.

    Attributes:
        mean: the mean, float64.
        covariance: the unbiased covariance, float64; zero for one sample, of which it isn't known.
        count: how many samples; None where a file doesn't say.
    """

    mean: Float[np.ndarray, " D"]
    covariance: Float[np.ndarray, "D D"]
    count: int | None

    @classmethod
    def of(cls, features: Float[Array | np.ndarray, "N D"]) -> Self:
        """The statistics of one batch.

        Raises:
            InterLCMError: it is empty, or not everything in it is finite.
        """
        x = np.asarray(features, np.float64)
        if x.ndim != 2 or not len(x):
            raise InterLCMError(f"features must be (N, D), N 1 or more, but are {x.shape}")
        if not np.isfinite(x).all():
            raise InterLCMError(f"{(~np.isfinite(x).all(axis=1)).sum()} of {len(x)} features aren't finite")
        mean = x.mean(axis=0)
        return cls(mean, (x - mean).T @ (x - mean) / max(len(x) - 1, 1), len(x))

    def merged(self, other: Self) -> Self:
        """The statistics of both sets together (Chan, Golub and LeVeque 1979): no sum of squares loses digits.

        Raises:
            InterLCMError: the widths differ, or one doesn't know its number of samples.
        """
        _check_widths(self, other)
        if self.count is None or other.count is None:
            raise InterLCMError("statistics can't be merged without their numbers of samples")
        count = self.count + other.count
        gap = other.mean - self.mean
        scatter = self.covariance * (self.count - 1) + other.covariance * (other.count - 1)
        scatter += np.outer(gap, gap) * (self.count * other.count / count)
        return type(self)(self.mean + gap * (other.count / count), scatter / (count - 1), count)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the numbers, in hexadecimal: reports name by it what they compared with.

        Numbers of the same images in batches of other sizes differ in their last digits, and so does it.
        """
        digest = hashlib.sha256(repr(self.count).encode())
        for array in (self.mean, self.covariance):
            digest.update(np.ascontiguousarray(array, "<f8").tobytes())
        return digest.hexdigest()

    def save(self, path: str | Path) -> None:
        """Writes an .npz file, which pytorch-fid reads as well; it appears whole or not at all."""
        known = {} if self.count is None else {"count": np.int64(self.count)}
        with whole_file(Path(path)) as temporary, open(temporary, "wb") as file:
            np.savez(file, mu=self.mean, sigma=self.covariance, fingerprint=np.array(self.fingerprint), **known)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads an .npz of `save` or pytorch-fid (`mu`, `sigma`), or a .pth of BasicSR (`mean`, `cov`).

        Raises:
            InterLCMError: there is no such file (the message says where FFHQ's is published), it holds something else,
                or it is a .pth and PyTorch isn't installed.
            WeightsError: it isn't a whole .pth, or its pickle would run code.
        """
        path = Path(path)
        FFHQ.check(path)
        held, names = (
            (read_plain(path), ("mean", "cov")) if path.suffix.lower() == ".pth" else (_arrays(path), ("mu", "sigma"))
        )
        if missing := [name for name in names if name not in held]:
            raise InterLCMError(f"{path}: no statistics of features ({', '.join(missing)} missing)")
        mean, covariance = (np.asarray(held[name]) for name in names)
        _check(path, mean, covariance)
        count = int(held["count"]) if "count" in held else None
        loaded = cls(mean.astype(np.float64), covariance.astype(np.float64), count)
        if str(held.get("fingerprint", loaded.fingerprint)) != loaded.fingerprint:
            raise InterLCMError(f"{path}: damaged (its fingerprint doesn't fit its numbers); copy it again")
        return loaded


def frechet_distance(first: Statistics, second: Statistics) -> float:
    """The squared Fréchet distance of two normal distributions: 0 for equal ones; FID, for Inception's features.

    |mean1 - mean2|^2 + trace(C1 + C2 - 2 (C1 C2)^(1/2)). With Ci = Ai Ai^T the last trace is the sum of the singular
    values of A1^T A2, to the last digits even where a set has fewer samples than the features have numbers. The root of
    the product, which pytorch-fid and BasicSR take from SciPy, doesn't exist numerically then: its zero eigenvalues are
    rounding errors (1e-16), whose roots (1e-8) add up, and FID comes out too low by 1e-8 to 1e-7 of itself; where SciPy
    gives NaN they add 1e-6 to the diagonals, and FID comes out too low by 1e-4 to 1e-3.

    The distance depends on the numbers of samples: compare only distances of equal ones.

    Raises:
        InterLCMError: the widths differ, or a set has one sample only.
    """
    _check_widths(first, second)
    if any(count is not None and count < 2 for count in (first.count, second.count)):
        raise InterLCMError("the Fréchet distance needs sets of two samples or more")
    gap = first.mean - second.mean
    root = np.linalg.svd(_factor(first.covariance).T @ _factor(second.covariance), compute_uv=False).sum()
    distance = gap @ gap + np.trace(first.covariance) + np.trace(second.covariance) - 2 * root
    return max(float(distance), 0.0)


def _factor(covariance: Float[np.ndarray, "D D"]) -> Float[np.ndarray, "D rank"]:
    """A of full rank with A A^T = covariance."""
    eigenvalues, vectors = np.linalg.eigh(covariance)
    # Zeros come out as rounding errors of 1e-16, whose roots of 1e-8 would count.
    kept = eigenvalues > len(eigenvalues) * np.finfo(np.float64).eps * max(eigenvalues[-1], 0)
    return vectors[:, kept] * np.sqrt(eigenvalues[kept])


def _check_widths(first: Statistics, second: Statistics) -> None:
    if len(first.mean) != len(second.mean):
        raise InterLCMError(f"statistics of features of {len(first.mean)} and of {len(second.mean)} numbers")


def _check(path: Path, mean: np.ndarray, covariance: np.ndarray) -> None:
    """Checks that arrays of a file are a mean and a covariance."""
    for array in (mean, covariance):
        if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
            raise InterLCMError(f"{path}: statistics must be finite floats")
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise InterLCMError(f"{path}: a mean of {mean.shape} and a covariance of {covariance.shape}")
    largest = np.abs(covariance).max(initial=0)
    if not math.isclose(np.abs(covariance - covariance.T).max(initial=0) + largest, largest, rel_tol=1e-5):
        raise InterLCMError(f"{path}: the covariance isn't symmetric")


def _arrays(path: Path) -> Mapping[str, Any]:
    try:
        # NumPy leaves a damaged file open that it has opened itself.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    # An array by itself (.npy) is no context: TypeError.
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, TypeError) as error:
        raise InterLCMError(f"{path}: not a whole .npz file of arrays ({error})") from error
