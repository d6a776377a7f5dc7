import errno
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from etils import epath

from interlcm_jax.errors import InterLCMError
from interlcm_jax.training import log_file
from interlcm_jax.training.log_file import LogFile, LogPieces


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
        "from interlcm_jax.training.log_file import LogFile\n"
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


def pieces(local: Path, bucket: epath.Path, start_step: int, steps: range) -> LogPieces:
    """A start of a run, whose pieces are in the bucket when it ends."""
    local.mkdir()
    log = LogPieces(local, bucket, start_step)
    for step in steps:
        log.write(step, {"loss": step / 10})
    for path in local.iterdir():
        (bucket / path.name).write_bytes(path.read_bytes())
    return log


def test_in_a_bucket_each_start_has_pieces_of_its_own_and_each_step_is_there_once(tmp_path, monkeypatch):
    monkeypatch.setattr(log_file, "MAX_BYTES", 60)
    bucket = epath.Path(tmp_path) / "bucket"
    bucket.mkdir()
    pieces(tmp_path / "first", bucket, 0, range(1, 8))
    assert [path.name for path in sorted(bucket.iterdir())] == [f"log-0000{n}.jsonl" for n in (1, 2, 3)]
    pieces(tmp_path / "second", bucket, 4, range(5, 8))
    steps = [[line["step"] for line in read(Path(path))] for path in sorted(bucket.iterdir())]
    assert steps == [[1, 2, 3], [4], [5, 6, 7]]
    pieces(tmp_path / "anew", bucket, 0, range(1, 3))
    assert [[line["step"] for line in read(Path(path))] for path in sorted(bucket.iterdir())] == [[1, 2]]


def test_the_runs_time_is_read_from_the_line_nearest_to_the_start(tmp_path):
    log = LogFile(tmp_path / "log.jsonl", 0)
    for step in (2, 4, 6):
        log.write(step, {"seconds/run": step})
        log.write(step, {"validation/psnr": 20})
    content = log.path.read_bytes()
    for start_step, nearest in ((5, 4), (9, 6), (1, 2), (0, 2)):
        log.path.write_bytes(content)
        assert LogFile(log.path, start_step).earlier["step"] == nearest
        bucket = epath.Path(tmp_path) / f"bucket{start_step}"
        bucket.mkdir()
        for number in (1, 2, 3):
            lines = content.splitlines(keepends=True)[2 * number - 2 : 2 * number]
            (bucket / f"log-0000{number}.jsonl").write_bytes(b"".join(lines))
        assert LogPieces(tmp_path, bucket, start_step).earlier["step"] == nearest


def test_pieces_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "log-00001.jsonl").mkdir()
    with pytest.raises(InterLCMError, match=r"the log can't be written \(Is a directory\)"):
        LogPieces(tmp_path / "local", epath.Path(tmp_path), 0)
