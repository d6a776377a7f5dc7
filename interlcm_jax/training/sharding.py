"""Where every array of a training run lies: one mesh, and an ordered list of rules for weights."""

import math
import re
from collections.abc import Callable, Mapping

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from interlcm_jax.errors import InterLCMError
from interlcm_jax.training.config import MeshConfig

DATA, FSDP = "data", "fsdp"
# Below so many elements a weight is on every device: to gather it would take longer than to read it.
MIN_ELEMENTS = 2**14
# By path, the first that matches: is the weight split over `fsdp` (along its longest axis that divides), or whole?
RULES: tuple[tuple[str, bool], ...] = (
    (r"(^|\.)(bias|scale|mean|var)$", False),
    (r"", True),
)


def make_mesh(config: MeshConfig, devices: list[jax.Device] | None = None) -> Mesh:
    """The mesh of all devices, of every process.

    Raises:
        InterLCMError: the devices don't divide as the config says.
    """
    devices = jax.devices() if devices is None else devices
    count, fsdp = len(devices), config.fsdp
    data = config.data or count // fsdp
    if data * fsdp != count:
        raise InterLCMError(f"mesh.data {config.data} x mesh.fsdp {fsdp} doesn't make the {count} devices there are")
    # Neighbors share `fsdp`, whose traffic is the heavier.
    return Mesh(np.array(devices).reshape(data, fsdp), (DATA, FSDP), axis_types=(AxisType.Auto, AxisType.Auto))


def weight_spec(path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """How a weight, its moments and its average are split, by its path."""
    split = next(split for pattern, split in RULES if re.search(pattern, path))
    size = mesh.shape[FSDP]
    fitting = [axis for axis, length in enumerate(shape) if length % size == 0]
    if not split or size == 1 or not fitting or math.prod(shape) < MIN_ELEMENTS:
        return PartitionSpec()
    # The last of the longest: a kernel's output channels rather than its input's.
    longest = max(fitting, key=lambda axis: (shape[axis], axis))
    return PartitionSpec(*(FSDP if axis == longest else None for axis in range(len(shape))))


def sharding_rule(mesh: Mesh) -> Callable[[str, tuple[int, ...]], NamedSharding]:
    """`weight_spec` as loading takes it."""
    return lambda path, shape: NamedSharding(mesh, weight_spec(path, shape, mesh))


def weight_shardings(shapes: Mapping[str, jax.ShapeDtypeStruct], mesh: Mesh) -> dict[str, NamedSharding]:
    """The sharding of each weight."""
    return {path: sharding_rule(mesh)(path, spec.shape) for path, spec in shapes.items()}


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Images: the first axis over all devices."""
    return NamedSharding(mesh, PartitionSpec((DATA, FSDP)))


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's share of a batch, as its part of the global batch on the devices."""
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}
