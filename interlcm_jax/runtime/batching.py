"""Many faces through one compiled program: fixed batches, spread over devices, with the next one always under way."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding
from jaxtyping import UInt8

Faces = UInt8[np.ndarray, "B H W 3"]
Started = tuple[jax.Array, jax.Array]
# Batches on the device while the host prepares the next: one running, one waiting for it.
IN_FLIGHT = 2


def replicated_sharding() -> Sharding:
    """A copy of each weight on every device of this process: what `from_pretrained(sharding=)` takes to restore a
    batch on all of them at once."""
    devices = jax.local_devices()
    if len(devices) == 1:
        return SingleDeviceSharding(devices[0])
    return NamedSharding(Mesh(np.array(devices), ("data",)), PartitionSpec())


def replicated_mesh(weights: object) -> Mesh | None:
    """The mesh of this process's devices that all hold all the weights; None where there is one device, or where
    the weights themselves are split and XLA must plan the work."""
    shardings = {leaf.sharding for leaf in jax.tree.leaves(weights)}
    meshes = {getattr(sharding, "mesh", None) for sharding in shardings}
    mesh = meshes.pop() if len(meshes) == 1 else None
    if not isinstance(mesh, Mesh) or mesh.size == 1 or mesh.is_multi_process:
        return None
    return mesh if all(sharding.is_fully_replicated for sharding in shardings) else None


def pad(batch: np.ndarray | jax.Array, size: int, axis: int = 0) -> np.ndarray | jax.Array:
    """The batch with its last entry repeated until there are `size`."""
    missing = size - batch.shape[axis]
    if not missing:
        return batch
    xp = np if isinstance(batch, np.ndarray) else jax.numpy
    last = xp.take(batch, xp.array([batch.shape[axis] - 1]), axis=axis)
    return xp.concatenate([batch, xp.repeat(last, missing, axis=axis)], axis=axis)


def in_batches(
    faces: Iterable[UInt8[np.ndarray, "H W 3"]], size: int, run: Callable[[Faces], Started]
) -> Iterator[np.ndarray | None]:
    """Runs faces in batches of one size and yields the results one by one, in order; None for one not finite.

    Faces are taken from the iterable while the device works on the batches before them, so the host's work is hidden
    where the iterable does it.

    Args:
        faces: of one size.
        size: faces a batch; the last is padded.
        run: starts a batch and returns, without waiting as jitted functions do, the results and which are finite.
    """
    source = iter(faces)
    under_way: deque[tuple[int, Started]] = deque()
    while batch := list(itertools.islice(source, size)):
        under_way.append((len(batch), run(pad(np.stack(batch), size))))
        if len(under_way) == IN_FLIGHT:
            yield from _results(*under_way.popleft())
    for started in under_way:
        yield from _results(*started)


def _results(count: int, started: Started) -> Iterator[np.ndarray | None]:
    images, finite = (np.asarray(array)[:count] for array in started)
    yield from (image if whole else None for image, whole in zip(images, finite, strict=True))
