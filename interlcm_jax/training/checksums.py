"""Checksums of a state's arrays: of their values, and so the same on any devices, shardings and processes."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import UInt32


def checksums(arrays: Mapping[str, Any]) -> dict[str, int]:
    """The sum of each array's 32-bit words (or smaller elements) modulo 2^32; every process gets all of them.

    Args:
        arrays: by path; of JAX, where each process adds what it holds of them, or of NumPy, whole in each process.
    """
    own = np.array([_own_sum(array) for array in arrays.values()], np.uint32)
    if jax.process_count() > 1 and any(isinstance(array, jax.Array) for array in arrays.values()):
        own = multihost_utils.process_allgather(own).sum(0, dtype=np.uint32)
    return dict(zip(arrays, own.tolist(), strict=True))


def mismatched(arrays: Mapping[str, Any], saved: Mapping[str, int]) -> list[str]:
    """Paths of the arrays that aren't what was saved; without a saved checksum there is nothing to compare."""
    return [path for path, found in checksums(arrays).items() if saved.get(path, found) != found]


def _own_sum(array: Any) -> UInt32[np.ndarray, ""] | np.uint32:
    if not isinstance(array, jax.Array):
        return _sum(np.asarray(array))
    # Of equal copies one counts.
    shards = [shard.data for shard in array.addressable_shards if shard.replica_id == 0]
    return np.sum([_sum(np.asarray(shard)) for shard in shards], dtype=np.uint32)


def _sum(array: np.ndarray) -> np.uint32:
    words = np.ascontiguousarray(array).reshape(-1)
    return words.view(f"u{min(words.itemsize, 4)}").sum(dtype=np.uint32)
