"""Validation of faces that are shown as they are, so that what comes out is known: on all devices, in two processes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from interlcm_jax.metrics.image import psnr
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.models.weights import abstract
from interlcm_jax.training.config import MeshConfig
from interlcm_jax.training.sharding import make_mesh
from interlcm_jax.training.stage import Stage
from interlcm_jax.training.validation import Validated, Validation

REPOSITORY = Path(__file__).parents[2]
COUNT, SHOWN = 21, 10


class Shows(Stage):
    """What goes in comes out."""

    def show(self, networks, model, lq, hq):
        return lq


class Faces:
    """Pairs of noise, which notes what is read."""

    def __init__(self):
        self.read = []

    def __len__(self):
        return COUNT + 1

    def __getitem__(self, i):
        assert 0 <= i < len(self)
        self.read.append(i)
        return dict(zip(("lq", "hq"), np.random.default_rng(i).integers(0, 256, (2, 16, 16, 3), np.uint8), strict=True))


def validate(faces: Faces) -> Validated:
    networks = abstract(lambda rngs: nnx.Linear(2, 2, rngs=rngs))
    mesh = make_mesh(MeshConfig(fsdp=2))
    with jax.set_mesh(mesh):
        validation = Validation(Shows(), faces, COUNT, SHOWN, ModelConfig.miniature(), networks, None, mesh)
        weights = {"kernel": np.zeros((2, 2), np.float32), "bias": np.zeros(2, np.float32)}
        return validation({}, weights)


def assert_right(scores: dict[str, float], lq: np.ndarray, restored: np.ndarray, hq: np.ndarray) -> None:
    pairs = [Faces()[i] for i in range(COUNT)]
    each = psnr(*(np.stack([pair[name] for pair in pairs]) for name in ("lq", "hq")))
    assert scores["psnr"] == pytest.approx(np.mean(np.asarray(each, np.float64)), rel=1e-7)
    assert scores.keys() == {"psnr", "ssim"}
    wanted = {name: np.stack([pair[name] for pair in pairs[:SHOWN]]) for name in ("lq", "hq")}
    for found, name in ((lq, "lq"), (restored, "lq"), (hq, "hq")):
        np.testing.assert_array_equal(found, wanted[name])


def test_every_face_counts_once_however_many_devices_there_are(unchecked):
    found = validate(Faces())
    assert_right(found.scores, found.lq, found.restored, found.hq)


PROGRAM = """
import json, sys
import jax, numpy as np
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
from tests.training.test_validation import Faces, validate
faces = Faces()
found = validate(faces)
np.savez(sys.argv[3], lq=found.lq, restored=found.restored, hq=found.hq)
print(json.dumps({"scores": found.scores, "read": faces.read}))
"""


@pytest.mark.long
def test_two_processes_share_the_faces_out(tmp_path):
    with socket.create_server(("localhost", 0)) as free:
        address = f"localhost:{free.getsockname()[1]}"
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "PYTHONPATH": str(REPOSITORY)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    arguments = [[address, str(i), str(tmp_path / f"{i}.npz")] for i in range(2)]
    processes = [subprocess.Popen([sys.executable, "-c", PROGRAM, *each], **pipes) for each in arguments]
    said = [process.communicate(timeout=200) for process in processes]
    found = [json.loads(out.splitlines()[-1]) if out else error for out, error in said]
    assert found[0]["scores"] == found[1]["scores"]
    for i in range(2):
        with np.load(tmp_path / f"{i}.npz") as pictures:
            assert_right(found[i]["scores"], pictures["lq"], pictures["restored"], pictures["hq"])
    # Six batches of four, of which each reads two; what is shown, each reads.
    own = [each["read"][:-SHOWN] for each in found]
    assert sorted(own[0] + own[1]) == [*range(COUNT), *[COUNT - 1] * 3]
    assert [len(each) for each in own] == [12, 12]
