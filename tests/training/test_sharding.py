"""Which weights are split, along which axis, and over which devices."""

import functools

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
