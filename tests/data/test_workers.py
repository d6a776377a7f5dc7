"""Worker processes: they make the same batches, hand on errors, and go when they should."""

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing.context import SpawnProcess

import numpy as np
import pytest

from interlcm_jax.data.loader import DataConfig, batches
from interlcm_jax.data.sources import Folder
from interlcm_jax.errors import InterLCMError
from tests.data.faces import write_faces

PROGRAM = """
import sys
from multiprocessing import active_children
from interlcm_jax.data.loader import DataConfig, batches
from interlcm_jax.data.sources import Folder

if __name__ == "__main__":
    source = Folder.open(sys.argv[1], 64)
    for batch in batches(source, DataConfig(image_size=64, workers=1), seed=0, batch_size=2):
        print(*(child.pid for child in active_children()), flush=True)
"""


def test_any_number_of_workers_makes_the_same_batches(tmp_path):
    write_faces(tmp_path, 5)
    source = Folder.open(tmp_path, 64)
    taken = []
    for workers in (0, 2):
        config = DataConfig(image_size=64, workers=workers)
        iterator = batches(source, config, seed=3, batch_size=4, start=2)
        taken.append(list(itertools.islice(iterator, 4)))
        # A forked one would hang: JAX runs threads in the parent.
        assert [type(child) for child in multiprocessing.active_children()] == [SpawnProcess] * workers
        iterator.close()
        deadline = time.monotonic() + 20
        while multiprocessing.active_children():
            assert time.monotonic() < deadline, "workers are left over"
            time.sleep(0.05)
    for ours, theirs in zip(*taken, strict=True):
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named(tmp_path, workers):
    files = write_faces(tmp_path, 4)
    source = Folder.open(tmp_path, 64)
    files[2].write_bytes(files[2].read_bytes()[:200])
    iterator = batches(source, DataConfig(image_size=64, workers=workers), seed=0, batch_size=4)
    with pytest.raises(InterLCMError, match=r"002\.png: can't be read as an image"):
        next(iterator)
    iterator.close()


KILLS = """
import multiprocessing, sys, time
from interlcm_jax.data.loader import DataConfig, batches
from interlcm_jax.data.sources import Folder

if __name__ == "__main__":
    source = Folder.open(sys.argv[1], 64)
    made = batches(source, DataConfig(image_size=64, workers=2, prefetch=1), seed=0, batch_size=4)
    next(made)
    # By then both are in the middle of sending a batch, which is larger than a pipe.
    time.sleep(3)
    multiprocessing.active_children()[0].kill()
    for _ in range(20):
        next(made)
"""


@pytest.mark.long
def test_a_worker_that_the_system_kills_ends_the_program_with_the_reason(tmp_path):
    write_faces(tmp_path / "faces", 8)
    (tmp_path / "program.py").write_text(KILLS)
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "faces")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert run.returncode == 2
    assert "ended by signal 9; where the machine was out of memory" in run.stderr


def gone(pid):
    # One that has ended stays listed until whoever adopted it looks.
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks processes up in /proc")
@pytest.mark.parametrize(("number", "group"), [(signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGKILL, False)])
def test_no_worker_outlives_a_program_that_is_ended(tmp_path, number, group):
    write_faces(tmp_path / "faces", 4)
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    command = [sys.executable, str(script), str(tmp_path / "faces")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    ) as run:
        workers = run.stdout.readline().split()
        assert workers
        # Ctrl-C reaches the whole group.
        (os.killpg if group else os.kill)(run.pid, number)
        run.wait(timeout=100)
        deadline = time.monotonic() + 20
        while not all(map(gone, workers)):
            assert time.monotonic() < deadline, "workers are left over"
            time.sleep(0.05)
