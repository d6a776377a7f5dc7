"""`interlcm restore` as real processes: two that share a folder, and one that is killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

IMAGES = 40


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """A model and forty aligned faces."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "model").symlink_to(model)
    (folder / "in").mkdir()
    for i in range(IMAGES):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((64, 64)).save(folder / "in" / f"{i:02}.png")
    return folder


def start(folder, out, *arguments):
    command = [sys.executable, "-m", "interlcm_jax.cli.main", "restore", "in", "-o", out, "--aligned", "--json"]
    environment = {**os.environ, "XLA_FLAGS": "", "INTERLCM_CACHE": str(folder / "cache")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*command, "--model", "model", *arguments], cwd=folder, env=environment, **pipes)


def finish(process):
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return json.loads(out)


def test_two_processes_share_a_folder(folder):
    with socket.create_server(("localhost", 0)) as free:
        address = f"localhost:{free.getsockname()[1]}"
    both = ["--coordinator", address, "--num-processes", "2"]
    processes = [start(folder, "shared", *both, "--process-id", str(i)) for i in range(2)]
    shares = [[done["input"] for done in finish(process)["restored"]] for process in processes]
    assert [len(share) for share in shares] == [IMAGES // 2] * 2
    assert sorted(shares[0] + shares[1]) == [f"in/{i:02}.png" for i in range(IMAGES)]
    assert len(list((folder / "shared").iterdir())) == IMAGES


def whole(out: Path) -> set[str]:
    """Results that are there; each must be a whole image."""
    names = set()
    for path in out.glob("[!.]*"):
        with Image.open(path) as image:
            image.load()
        names.add(path.name)
    return names


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_what_is_left_of_a_killed_run_is_whole_and_is_completed(folder, how):
    out = folder / how.name
    process = start(folder, how.name)
    while process.poll() is None and len(list(out.glob("[!.]*"))) < 3:
        time.sleep(0.01)
    process.send_signal(how)
    _, error = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130}[how], error
    assert "Traceback" not in error
    before = whole(out)
    assert 3 <= len(before) < IMAGES
    summary = finish(start(folder, how.name, "--skip-existing"))
    assert {Path(done["output"]).name for done in summary["skipped"]} == before
    assert len(whole(out)) == IMAGES
