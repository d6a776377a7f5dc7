"""`train.py` from bucket to bucket: two processes that share no disk, killed, refused and kept waiting."""

import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from interlcm_jax.data.faces_builder import build_faces
from tests.bucket_server import Bucket, bucket_server
from tests.test_train_processes import arrays, assert_bitwise_equal, log

REPOSITORY = Path(__file__).parents[1]
STEPS, EVERY = 14, 5

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Faces and shards of them on this machine, for the run that everything is compared with."""
    folder = tmp_path_factory.mktemp("train")
    (folder / "faces").mkdir()
    for i in range(24):
        low = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
        cv2.imwrite(str(folder / "faces" / f"{i:02}.png"), cv2.resize(low, (64, 64)))
    build_faces(folder / "faces", sorted((folder / "faces").iterdir()), folder / "data", 64)
    return folder


@pytest.fixture
def full(folder) -> Iterator[Bucket]:
    """A bucket with the shards."""
    with bucket_server() as bucket:
        for file in (folder / "data").iterdir():
            bucket.put(f"data/{file.name}", file.read_bytes())
        yield bucket


def start(folder: Path, bucket: Bucket | None, *options: str, count: int = 2, devices: int = 2, patience: int = 300):
    """A training of so many processes, each in an empty folder of its own; without a bucket, in `folder`."""
    place = "gs://bucket/" if bucket else f"{folder}/"
    fields = {
        "run.folder": f"{place}run",
        "run.log-every": "1",
        "run.checkpoint-every": str(EVERY),
        "data.path": f"{place}data",
        "validation.path": "None",
        "stage.losses.lpips": "0",
        "stage.losses.adversarial-from": "2",
        "optimizer.learning-rate": "1e-4",
        "steps": str(STEPS),
        "batch-size": "4",
    }
    flags = [text for name, value in fields.items() for text in (f"--{name}", value)]
    command = [sys.executable, str(REPOSITORY / "train.py"), str(REPOSITORY / "configs" / "smoke.py"), *flags, *options]
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "0",
        # On CPUs processes have programs of their own, of which the first's alone are kept: the others would come late.
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "PYTHONPATH": str(REPOSITORY),
        "INTERLCM_BUCKET_PATIENCE": str(patience),
        **(bucket.environment() if bucket else {}),
    }
    with socket.create_server(("localhost", 0)) as free:
        both = ["--coordinator", f"localhost:{free.getsockname()[1]}", "--num-processes", str(count), "--process-id"]
    processes = []
    for i in range(count):
        disk = folder / f"disk{i}"
        disk.mkdir(exist_ok=True)
        own = [*command, *both, str(i)] if count > 1 else command
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(own, cwd=disk, env=environment, **pipes))
    return processes


def finish(processes: list[subprocess.Popen], code: int = 0) -> list[str]:
    said = [process.communicate(timeout=900)[1] for process in processes]
    assert [process.returncode for process in processes] == [code] * len(processes), "\n".join(said)
    return said


def copy_down(bucket: Bucket, to: Path, name: str) -> Path:
    """The run in the bucket, as a run on this machine."""
    for key in bucket.names("run/"):
        file = to / name / key.removeprefix("run/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bucket.objects[key])
    return to


def losses(bucket: Bucket) -> dict[int, float]:
    """By step; each is logged once, whatever was killed."""
    lines = [line for key in bucket.names("run/log-") for line in bucket.objects[key].splitlines()]
    found = [(line["step"], line["loss"]) for line in map(json.loads, lines) if "loss" in line]
    assert len(dict(found)) == len(found)
    return dict(found)


@pytest.fixture(scope="module")
def unbroken(folder):
    """The run that nothing stops, on this machine's disk: two processes of two devices, as in the bucket."""
    finish(start(folder, None))
    return {line["step"]: line["loss"] for line in log(folder, "run") if "loss" in line}, arrays(folder, "run")


def test_a_run_in_a_bucket_that_is_killed_goes_on_with_the_same_bits(folder, full, unbroken):
    chance = random.Random(1)
    for _ in range(3):
        processes = start(folder, full)
        began, last = len(full.written), time.monotonic() + 300
        # Somewhere between its first object of a checkpoint and a few seconds later.
        while not any("checkpoints/" in name for name in full.written[began:]) and time.monotonic() < last:
            assert all(process.poll() is None for process in processes), finish(processes)
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 2))
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate()
    finish(start(folder, full))
    assert_bitwise_equal(arrays(copy_down(full, folder, "killed"), "killed"), unbroken[1])
    # What a kill takes from the log is less than the half minute between copies; no step has another loss.
    found = losses(full)
    assert found == {step: unbroken[0][step] for step in found}
    assert STEPS in found
    # Nothing of the run is on a disk.
    assert not any((folder / f"disk{i}" / name).exists() for i in range(2) for name in ("run", "gs:"))


def test_another_number_of_devices_goes_on(folder, full, unbroken):
    finish(start(folder, full, "--steps", "5", "--mesh.fsdp", "2"))
    finish(start(folder, full, "--steps", "7", count=1))
    assert max(losses(full)) == 7
    for step, loss in losses(full).items():
        assert loss == pytest.approx(unbroken[0][step], rel=1e-4)


def test_requests_that_fail_change_nothing(folder, full, unbroken):
    full.failing = 0.05
    finish(start(folder, full))
    assert_bitwise_equal(arrays(copy_down(full, folder, "failing"), "failing"), unbroken[1])
    assert losses(full) == unbroken[0]


def when_saved(bucket: Bucket, processes: list[subprocess.Popen]) -> None:
    """Waits for the first checkpoint."""
    while not bucket.names("run/checkpoints/5/commit_success.txt"):
        assert all(process.poll() is None for process in processes), finish(processes)
        time.sleep(0.05)


def test_a_minute_without_a_bucket_is_waited_for(folder, full, unbroken):
    processes = start(folder, full)
    when_saved(full, processes)
    full.down = True
    time.sleep(60)
    full.down = False
    finish(processes)
    assert_bitwise_equal(arrays(copy_down(full, folder, "down"), "down"), unbroken[1])


def test_a_bucket_that_stays_away_ends_the_run_with_its_checkpoint_whole(folder, full, unbroken):
    processes = start(folder, full, patience=20)
    when_saved(full, processes)
    full.down = True
    for said in finish(processes, code=2):
        assert "no answer in 20 s" in said
        assert "Traceback" not in said
    full.down = False
    finish(start(folder, full))
    assert_bitwise_equal(arrays(copy_down(full, folder, "away"), "away"), unbroken[1])
