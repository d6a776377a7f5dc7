"""`train.py` as real processes: stopped and gone on with, killed, two that train as one, and what it refuses."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest

from interlcm_jax.training.checkpoint_reader import CheckpointReader

REPOSITORY = Path(__file__).parents[1]
STEPS, STOP_AT = 14, 6
AGAIN = 75
SAME = 1e-4  # relative, of losses and norms on other devices


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of faces."""
    folder = tmp_path_factory.mktemp("train")
    (folder / "faces").mkdir()
    for i in range(24):
        low = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
        cv2.imwrite(str(folder / "faces" / f"{i:02}.png"), cv2.resize(low, (64, 64)))
    return folder


def start(folder: Path, run: str, *options: str, devices: int = 1) -> subprocess.Popen:
    fields = {
        "run.folder": run,
        "run.log-every": "1",
        "run.checkpoint-every": "5",
        "data.path": "faces",
        "validation.path": "None",
        "stage.losses.lpips": "0",
        "stage.losses.adversarial-from": "2",
        "optimizer.learning-rate": "1e-4",
        "steps": str(STEPS),
    }
    flags = [text for name, value in fields.items() for text in (f"--{name}", value)]
    command = [sys.executable, str(REPOSITORY / "train.py"), str(REPOSITORY / "configs" / "smoke.py"), *flags]
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        # They take many steps of one program: worth optimizing.
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "0",
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "PYTHONPATH": str(REPOSITORY),
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*command, *options], cwd=folder, env=environment, **pipes)


def finish(process: subprocess.Popen, code: int = 0) -> str:
    """Its messages."""
    _, error = process.communicate(timeout=500)
    assert process.returncode == code, error
    return error


def log(folder: Path, run: str) -> list[dict]:
    path = folder / run / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for_step(process: subprocess.Popen, folder: Path, run: str, step: int) -> None:
    while not any(line["step"] >= step for line in log(folder, run)):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)


def arrays(folder: Path, run: str) -> dict[str, np.ndarray]:
    """All of the newest checkpoint."""
    parts = ("params", "ema", "optimizer", "discriminator", "statistics", "discriminator_optimizer")
    with CheckpointReader(folder / run / "checkpoints") as checkpoints:
        assert checkpoints.latest() == STEPS
        return {f"{part}/{path}": value for part in parts for path, value in checkpoints.read(part).items()}


@pytest.fixture(scope="module")
def unbroken(folder):
    """The run that nothing stops."""
    finish(start(folder, "unbroken"))
    return arrays(folder, "unbroken")


def assert_bitwise_equal(ours: dict, reference: dict) -> None:
    assert ours.keys() == reference.keys()
    assert len(ours) > 500
    assert [path for path in reference if ours[path].tobytes() != reference[path].tobytes()] == []


@pytest.mark.long
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(folder, unbroken):
    run = "stopped"
    process = start(folder, run)
    wait_for_step(process, folder, run, STOP_AT)
    process.send_signal(signal.SIGTERM)
    said = finish(process)
    stopped = log(folder, run)[-1]["step"]
    assert STOP_AT <= stopped < STEPS
    assert f"stopped; the same command goes on at step {stopped}, saved in {run}/checkpoints/{stopped}" in said
    finish(start(folder, run))
    assert_bitwise_equal(arrays(folder, run), unbroken)
    # Data order and all: the losses of every step, each logged once.
    numbers = [[(line["step"], line["loss"], line["grad_norm"]) for line in log(folder, r)] for r in (run, "unbroken")]
    assert numbers[0] == numbers[1]


def test_a_killed_run_goes_on_from_its_last_whole_checkpoint(folder, unbroken):
    process = start(folder, "killed")
    wait_for_step(process, folder, "killed", STOP_AT)
    process.kill()
    process.communicate()
    finish(start(folder, "killed"))
    assert_bitwise_equal(arrays(folder, "killed"), unbroken)


def start_two(folder: Path, runs: list[str], *options: str, faces: list[str] = ("faces", "faces"), devices: int = 1):
    """Two processes of one training."""
    with socket.create_server(("localhost", 0)) as free:
        both = ["--coordinator", f"localhost:{free.getsockname()[1]}", "--num-processes", "2", *options]
    own = [["--process-id", str(i), "--data.path", faces[i]] for i in range(2)]
    return [start(folder, runs[i], *both, *own[i], devices=devices) for i in range(2)]


@pytest.mark.long
@pytest.mark.parametrize("killed", [0, 1])
def test_where_one_process_is_killed_the_other_ends_with_one_sentence(folder, killed):
    run = f"lost_{killed}"
    processes = start_two(folder, [run, run], "--steps", "10000")
    wait_for_step(processes[0], folder, run, 1)
    processes[killed].kill()
    _, said = processes[1 - killed].communicate(timeout=60)
    processes[killed].communicate()
    assert processes[1 - killed].returncode == AGAIN, said
    assert (
        f"train (process {1 - killed} of 2 on {socket.gethostname()}): process {killed} gives no sign of life" in said
    )
    assert "Traceback" not in said
    assert "stack trace" not in said


@pytest.mark.long
def test_a_bad_image_that_one_process_meets_ends_both_with_the_reason(folder):
    shutil.copytree(folder / "faces", folder / "bad")
    for path in (folder / "bad").iterdir():
        path.write_bytes(path.read_bytes()[:-200])
    processes = start_two(folder, ["one_bad", "one_bad"], faces=["faces", "bad"])
    said = [finish(process, code=2) for process in processes]
    for index, reason in enumerate(said):
        assert f"train (process {index} of 2 on {socket.gethostname()}): " in reason
        assert ".png: can't be read" in reason
        assert "Traceback" not in reason
    assert "process 1 of 2" in said[0]


@pytest.mark.long
def test_two_processes_that_see_different_folders_end_at_once(folder):
    for process in start_two(folder, ["apart_0", "apart_1"]):
        assert "process 1 of 2 doesn't see what process 0 writes there" in finish(process, code=2)


@pytest.mark.long
def test_a_second_training_in_the_folder_is_refused(folder):
    first = start(folder, "held", "--steps", "10000")
    wait_for_step(first, folder, "held", 1)
    assert "held: another training is at work in this folder" in finish(start(folder, "held"), code=2)
    first.kill()
    first.communicate()


@pytest.mark.long
def test_two_processes_of_four_devices_train_as_one_device(folder, unbroken):
    options = ["--mesh.fsdp", "2", "--steps", "4"]
    for process in start_two(folder, ["pair", "pair"], *options, devices=4):
        finish(process)
    ours, reference = log(folder, "pair"), log(folder, "unbroken")[:4]
    assert [line["step"] for line in ours] == [1, 2, 3, 4]
    for mine, theirs in zip(ours, reference, strict=True):
        for name in ("loss", "loss/l1", "loss/discriminator", "grad_norm", "param_norm"):
            assert mine[name] == pytest.approx(theirs[name], rel=SAME), name


@pytest.mark.long
def test_a_checkpoint_of_eight_devices_goes_on_on_two(folder, unbroken):
    finish(start(folder, "moved", "--mesh.fsdp", "4", "--steps", "5", devices=8))
    finish(start(folder, "moved", "--mesh.fsdp", "2", "--steps", "7", devices=2))
    ours, reference = log(folder, "moved"), log(folder, "unbroken")
    assert [line["step"] for line in ours] == list(range(1, 8))
    for mine, theirs in zip(ours, reference, strict=False):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=SAME)


@pytest.mark.long
def test_a_broken_loss_stops_it_and_spares_the_checkpoints(folder, unbroken):
    """The learning rate sends the weights to infinity; a new run starts from another's checkpoint."""
    rate = ["--optimizer.learning-rate", "1e15", "--optimizer.final-learning-rate", "1", "--run.checkpoint-every", "1"]
    said = finish(start(folder, "broken", "--resume", "unbroken", "--steps", str(STEPS + 4), *rate), code=2)
    assert f"train: step {STEPS + 2}: " in said
    assert "is nan" in said or "is inf" in said
    with CheckpointReader(folder / "broken" / "checkpoints") as checkpoints:
        assert checkpoints.steps() == [STEPS + 1]
