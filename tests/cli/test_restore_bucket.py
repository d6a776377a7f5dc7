"""`interlcm restore` from bucket to bucket by two processes, which a kill doesn't cost an image."""

import os
import socket
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from tests.bucket_server import bucket_server
from tests.cli.aligned_faces import face as save_face

pytestmark = pytest.mark.long
COUNT = 40


@pytest.fixture
def photos(tmp_path):
    """A bucket with images, and the folder of them."""
    with bucket_server() as bucket:
        for i in range(COUNT):
            bucket.put(f"in/{i:02}.png", save_face(tmp_path / f"{i:02}.png", i).read_bytes())
        yield bucket


def start(bucket, tmp_path, *options):
    with socket.create_server(("localhost", 0)) as free:
        both = ["--coordinator", f"localhost:{free.getsockname()[1]}", "--num-processes", "2", "--process-id"]
    environment = {
        **os.environ,
        **bucket.environment(),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "0",
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "INTERLCM_MODELS": str(tmp_path / "none"),
    }
    command = [sys.executable, "-m", "interlcm_jax.cli.main", "restore", "gs://bucket/in", "-o", "gs://bucket/out"]
    command += ["--aligned", "--leave-sharp", "off", *options, *both]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return [subprocess.Popen([*command, str(i)], env=environment, cwd=tmp_path, **pipes) for i in range(2)]


def test_two_processes_restore_each_image_once_and_the_rest_after_a_kill(photos, tmp_path):
    processes = start(photos, tmp_path)
    while len(photos.names("out/")) < 6:
        assert all(process.poll() is None for process in processes), processes[0].communicate()[0]
        time.sleep(0.02)
    for process in processes:
        process.kill()
        process.communicate()
    done = photos.names("out/")
    assert 6 <= len(done) < COUNT
    photos.written.clear()
    for process in start(photos, tmp_path, "--skip-existing"):
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 0, said
    assert photos.names("out/") == [f"out/{i:02}.png" for i in range(COUNT)]
    results = [name for name in photos.written if name.endswith(".png")]
    assert sorted(results) == sorted(set(photos.names("out/")) - set(done))
    for name in photos.names("out/"):
        assert np.asarray(Image.open(BytesIO(photos.objects[name]))).std() > 1
