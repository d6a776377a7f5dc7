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
    """The mesh of all devices, of every process: rows of `fsdp` devices, slice by slice, process by process.

    `jax.experimental.mesh_utils` knows better orders for some TPUs, in which a process' devices aren't neighbors: then
    a batch would have its images in another order, and each other noise, than on one device.

    Raises:
        InterLCMError: the devices don't divide as the config says.
    """
    devices = jax.devices() if devices is None else devices
    count, fsdp = len(devices), config.fsdp
    data = config.data or count // fsdp
    if data * fsdp != count:
        raise InterLCMError(f"mesh.data {config.data} x mesh.fsdp {fsdp} doesn't make the {count} devices there are")
    _check_slices(config, devices)
    # Neighbors share `fsdp`, whose traffic is the heavier.
    grid = np.array(sorted(devices, key=lambda device: (_slice(device), device.process_index))).reshape(data, fsdp)
    return Mesh(grid, (DATA, FSDP), axis_types=(AxisType.Auto, AxisType.Auto))


def _slice(device: jax.Device) -> int:
    """Which TPU slice a device is in; other platforms have none."""
    return getattr(device, "slice_index", 0) if device.platform == "tpu" else 0


def _check_slices(config: MeshConfig, devices: list[jax.Device]) -> None:
    """Weights are split within a slice: between slices, gradients alone are slow enough."""
    found = len({_slice(device) for device in devices})
    slices = config.slices or found
    if found > 1 and slices != found:
        raise InterLCMError(f"mesh.slices is {slices}, but the devices are in {found} slices")
    if len(devices) % slices:
        raise InterLCMError(f"mesh.slices {slices} doesn't divide the {len(devices)} devices")
    size = len(devices) // slices
    if size % config.fsdp:
        raise InterLCMError(f"mesh.fsdp {config.fsdp} doesn't divide the {size} devices of each of {slices} slices")


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
