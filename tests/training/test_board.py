import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from interlcm_jax.errors import InterLCMError
from interlcm_jax.training import board as board_module
from interlcm_jax.training.board import Board


def records(folder: Path) -> list:
    """The events in a folder of TensorBoard's, file by file in the order of their names."""
    from tensorboardX.proto.event_pb2 import Event

    events = []
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            events.append(Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
    return events


def test_tensorboard_has_curves_and_pictures(tmp_path):
    board = Board(tmp_path, 0)
    board.scalars(3, {"loss": 0.5, "loss/l1": 0.25})
    board.image(3, "samples", np.full((4, 6, 3), 7, np.uint8))
    board.close()
    values = [(event.step, value) for event in records(tmp_path) for value in event.summary.value]
    assert [(step, value.tag) for step, value in values] == [(3, "loss"), (3, "loss/l1"), (3, "samples")]
    assert [value.simple_value for _, value in values[:2]] == [0.5, 0.25]
    assert (values[2][1].image.height, values[2][1].image.width) == (4, 6)


def test_tensorboard_hides_the_steps_that_are_run_again(tmp_path):
    Board(tmp_path, 4).close()
    starts = [event.step for event in records(tmp_path) if event.session_log.status == event.session_log.START]
    assert starts == [5]


def test_tensorboard_loads_neither_pytorch_nor_tensorflow(tmp_path):
    program = (
        "import pathlib, sys, numpy\n"
        "from interlcm_jax.training.board import Board\n"
        "board = Board(pathlib.Path(sys.argv[1]), 0)\n"
        "board.scalars(1, {'loss': 0.5})\n"
        "board.image(1, 'samples', numpy.zeros((4, 4, 3), numpy.uint8))\n"
        "board.close()\n"
        "print(*sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert not {"torch", "tensorflow"} & set(run.stdout.split())


def test_without_tensorboardx_it_is_said_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(InterLCMError, match=r"pip install 'interlcm-jax\[train\]'"):
        Board(tmp_path, 0)


KILLED = """
import os, pathlib, signal, sys
from interlcm_jax.training.board import Board
board = Board(pathlib.Path(sys.argv[1]), 0)
for step in range(1, 101):
    board.scalars(step, {"loss": step / 4, "mfu": None})
board.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_flushed_is_there_after_a_kill(tmp_path):
    run = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], timeout=60)
    assert run.returncode == -signal.SIGKILL
    points = [(event.step, value.tag) for event in records(tmp_path) for value in event.summary.value]
    assert points == [(step, "loss") for step in range(1, 101)]


def test_event_files_are_bounded_and_their_names_are_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(board_module, "MAX_BYTES", 500)
    board = Board(tmp_path, 0)
    for step in range(1, 101):
        board.scalars(step, {"loss": step / 4})
    board.close()
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) > 3
    assert max(sizes) < 1500
    assert [event.step for event in records(tmp_path) if event.summary.value] == list(range(1, 101))
