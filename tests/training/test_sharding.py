"""Which weights are split, along which axis, and over which devices."""

import dataclasses
import functools

import jax
import pytest

from interlcm_jax.errors import InterLCMError
from interlcm_jax.training.config import MeshConfig
from interlcm_jax.training.sharding import make_mesh, weight_spec


def test_rules_split_the_longest_axis_that_divides():
    mesh = make_mesh(MeshConfig(fsdp=4))
    spec = functools.partial(weight_spec, mesh=mesh)
    assert tuple(spec("a.kernel", (3, 3, 64, 128))) == (None, None, None, "fsdp")
    assert tuple(spec("a.kernel", (3, 3, 256, 98))) == (None, None, "fsdp", None)
    assert tuple(spec("a.kernel", (3, 3, 8, 8))) == ()
    assert tuple(spec("a.kernel", (1001, 333))) == ()
    assert tuple(spec("a.bias", (2**20,))) == ()


def test_devices_that_do_not_divide_are_an_error():
    with pytest.raises(InterLCMError, match=r"mesh.data 3 x mesh.fsdp 2 doesn't make the 8 devices"):
        make_mesh(MeshConfig(data=3, fsdp=2))


@dataclasses.dataclass(frozen=True)
class Chip:
    """What a mesh is ordered by."""

    id: int
    process_index: int
    slice_index: int
    platform: str = "tpu"


def grid(config: MeshConfig, chips: list[Chip], monkeypatch) -> list[list[int]]:
    """The chips' numbers as the mesh has them."""
    monkeypatch.setattr("interlcm_jax.training.sharding.Mesh", lambda grid, *_, **__: grid)
    return [[chip.id for chip in row] for row in make_mesh(config, chips)]


def test_weights_are_split_within_a_slice_and_a_process_has_neighbors(monkeypatch):
    # Two slices of two processes of two chips, as a TPU numbers them.
    chips = [Chip(4 * s + 2 * row + p, 2 * s + p, s) for row in (0, 1) for s in (1, 0) for p in (0, 1)]
    assert grid(MeshConfig(fsdp=2), chips, monkeypatch) == [[0, 2], [1, 3], [4, 6], [5, 7]]
    assert grid(MeshConfig(fsdp=4, slices=2), chips, monkeypatch) == [[0, 2, 1, 3], [4, 6, 5, 7]]
    assert grid(MeshConfig(), chips, monkeypatch) == [[0], [2], [1], [3], [4], [6], [5], [7]]
    with pytest.raises(InterLCMError, match=r"mesh.slices is 4, but the devices are in 2 slices"):
        make_mesh(MeshConfig(slices=4), chips)
    with pytest.raises(InterLCMError, match=r"mesh.fsdp 8 doesn't divide the 4 devices of each of 2 slices"):
        make_mesh(MeshConfig(fsdp=8), chips)


def test_without_slices_of_a_tpu_neighbors_make_them():
    assert make_mesh(MeshConfig(fsdp=4, slices=2)).shape == {"data": 2, "fsdp": 4}
    with pytest.raises(InterLCMError, match=r"mesh.fsdp 8 doesn't divide the 4 devices of each of 2 slices"):
        make_mesh(MeshConfig(fsdp=8, slices=2))
    with pytest.raises(InterLCMError, match=r"mesh.slices 3 doesn't divide the 8 devices"):
        make_mesh(MeshConfig(slices=3))


def test_devices_of_one_process_keep_their_order():
    assert list(make_mesh(MeshConfig(), jax.devices()[::-1]).devices.flat) == jax.devices()[::-1]
