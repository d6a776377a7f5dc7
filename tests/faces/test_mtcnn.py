"""MTCNN's weights: where they come from, and that nothing else is ever opened."""

import importlib.machinery
import importlib.util
import math
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from interlcm_jax.errors import InterLCMError
from interlcm_jax.faces import mtcnn
from interlcm_jax.faces.mtcnn import (
    ProposalConfig,
    ProposalNetwork,
    RefinementConfig,
    RefinementNetwork,
    load_networks,
    read_weights,
)
from interlcm_jax.models.weights import flat_weights


def test_every_weight_of_the_files_is_taken():
    for name, network in zip(mtcnn.SHA256, load_networks(), strict=True):
        loaded = [variable.get_value() for variable in flat_weights(network).values()]
        shipped = read_weights(name)
        assert sum(value.size for value in loaded) == sum(array.size for array in shipped)
        assert math.isclose(sum(float(v.sum()) for v in loaded), sum(float(a.sum()) for a in shipped), rel_tol=1e-4)


def test_weights_go_to_the_device_asked_for():
    device = jax.devices()[3]
    for network in load_networks(device):
        assert {d for v in flat_weights(network).values() for d in v.get_value().devices()} == {device}


def test_a_miniature_runs():
    proposal = ProposalNetwork(ProposalConfig((2, 3, 4)), rngs=nnx.Rngs(0))
    scores, offsets = proposal(jnp.zeros((1, 14, 20, 3)))
    assert (scores.shape, offsets.shape) == ((1, 2, 5), (1, 2, 5, 4))
    config = RefinementConfig(12, (2, 3), (3, 2), (3, 1), 4, 5)
    scores, offsets, points = RefinementNetwork(config, rngs=nnx.Rngs(0))(jnp.zeros((2, 12, 12, 3)))
    assert (scores.shape, offsets.shape, points.shape) == ((2,), (2, 4), (2, 5, 2))


def test_without_the_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InterLCMError, match=r"package mtcnn, which isn't there: pip install mtcnn==1\.0\.0"):
        load_networks()


def package(folder, monkeypatch) -> None:
    """Puts a folder in the place of the installed package."""
    spec = importlib.machinery.ModuleSpec("mtcnn", None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)


def test_a_package_without_weights(tmp_path, monkeypatch):
    package(tmp_path, monkeypatch)
    with pytest.raises(InterLCMError, match=r"pnet\.lz4: can't be read \(No such file.*pip install mtcnn==1\.0\.0"):
        read_weights("pnet")


class _Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_other_files_are_not_unpickled(tmp_path, monkeypatch):
    package(tmp_path, monkeypatch)
    weights = tmp_path / "assets" / "weights" / "onet.lz4"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(pickle.dumps(_Bomb(str(tmp_path / "opened"))))
    with pytest.raises(InterLCMError, match=r"onet\.lz4: not the weights of mtcnn 1\.0\.0.*pip install"):
        read_weights("onet")
    assert not (tmp_path / "opened").exists()


def test_importing_the_detector_does_no_work():
    program = (
        "import sys, jax, interlcm_jax.faces.mtcnn_detector\n"
        "jax.config.update('jax_num_cpu_devices', 3)\n"  # fails once a backend runs
        "assert jax.device_count() == 3\n"
        "assert not {'tensorflow', 'mtcnn', 'joblib', 'torch'} & sys.modules.keys()\n"
    )
    environment = {"JAX_PLATFORMS": "cpu", "PATH": ""}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=120)
    assert run.returncode == 0, run.stderr
