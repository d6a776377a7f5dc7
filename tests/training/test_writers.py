import errno
import io
import json
import math
import os
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from interlcm_jax.errors import InterLCMError
from interlcm_jax.training.writers import Board, LogFile, Progress


def read(path: Path) -> list[dict]:
    content = path.read_bytes()
    assert not content or content.endswith(b"\n")
    return [json.loads(line) for line in content.splitlines()]


def write(path: Path, start_step: int, steps: range) -> None:
    log = LogFile(path, start_step)
    for step in steps:
        log.write(step, {"loss": step / 10})


def test_a_resumed_log_has_each_step_once(tmp_path):
    path = tmp_path / "log.jsonl"
    write(path, 0, range(1, 8))
    write(path, 4, range(5, 10))
    assert read(path) == [{"step": step, "loss": step / 10} for step in range(1, 10)]


def test_a_run_from_the_start_has_a_new_log(tmp_path):
    path = tmp_path / "log.jsonl"
    write(path, 0, range(0, 5))
    write(path, 0, range(0, 2))
    assert [line["step"] for line in read(path)] == [0, 1]


def test_lines_that_are_no_whole_objects_are_dropped_on_resuming(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2, "lo{"step": 3}\n[4]\n{"step": null}\n{"step": 5}\n{"step": 6}')
    write(path, 6, range(7, 8))
    assert [line["step"] for line in read(path)] == [1, 5, 7]


def test_numbers_that_are_not_finite_are_null(tmp_path):
    log = LogFile(tmp_path / "log.jsonl", 0)
    log.write(1, {"loss": math.nan, "psnr": math.inf, "l1": 0.5})
    assert read(log.path) == [{"step": 1, "loss": None, "psnr": None, "l1": 0.5}]


def test_a_killed_process_leaves_whole_lines(tmp_path):
    path = tmp_path / "log.jsonl"
    # The signal comes in the middle of what is written of the last line.
    program = (
        "import os, pathlib, signal, sys\n"
        "from interlcm_jax.training.writers import LogFile\n"
        "log = LogFile(pathlib.Path(sys.argv[1]), 0)\n"
        "for step in range(1, 4): log.write(step, {'loss': 0.1})\n"
        "def killed_half_way(path, content):\n"
        "    with path.open('wb') as file:\n"
        "        file.write(content[:-5])\n"
        "        file.flush()\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "pathlib.Path.write_bytes = killed_half_way\n"
        "log.write(4, {'loss': 0.1})\n"
    )
    process = subprocess.run([sys.executable, "-c", program, str(path)], timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert [line["step"] for line in read(path)] == [1, 2, 3]
    write(path, 2, range(3, 5))
    assert [line["step"] for line in read(path)] == [1, 2, 3, 4]
    assert list(tmp_path.iterdir()) == [path]


def test_a_log_that_cannot_be_written_is_named_and_stays(tmp_path, monkeypatch):
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(InterLCMError, match=r"folder\.jsonl: the log can't be written"):
        LogFile(tmp_path / "folder.jsonl", 0)
    path = tmp_path / "log.jsonl"
    log = LogFile(path, 0)
    log.write(1, {"loss": 0.1})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InterLCMError, match=r"log\.jsonl: the log can't be written \(No space"):
        log.write(2, {"loss": 0.1})
    assert read(path) == [{"step": 1, "loss": 0.1}]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar_that_goes_on_from_the_step_it_starts_at():
    stream = Terminal()
    progress = Progress(200, 100, stream=stream)
    progress.move(150)
    progress.tell({"loss": 0.123456}, 2.0)
    progress.close()
    shown = stream.getvalue().split("\r")
    assert "100/200" in shown[1]
    assert re.search(r"75%.*150/200 .*step.*loss 0\.1235", shown[-1])


def test_elsewhere_there_is_a_line_now_and_then():
    stream = io.StringIO()
    progress = Progress(200, 100, line_seconds=1000, stream=stream)
    for step in (120, 140, 200):
        progress.move(step)
        progress.tell({"loss": 0.5}, 2.0)
    progress.close()
    assert stream.getvalue().splitlines() == [
        "step 120/200, 2 steps/s, 00:40 left, loss 0.5",
        "step 200/200, 2 steps/s, 00:00 left, loss 0.5",
    ]


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
        "from interlcm_jax.training.writers import Board\n"
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
