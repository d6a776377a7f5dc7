import os
import signal
import stat
import subprocess
import sys
import time

import pytest

from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.atomic import check_space, whole_file, whole_folder


def test_a_folder_appears_whole(tmp_path):
    out = tmp_path / "deep" / "out"
    with whole_folder(out) as folder:
        (folder / "a").write_text("a")
        (folder / "b").mkdir()
        assert not out.exists()
    assert sorted(path.name for path in out.iterdir()) == ["a", "b"]
    assert list(out.parent.iterdir()) == [out]


def fail_after_writing(path, error):
    path.write_text("half")
    raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_folder_is_absent_after_an_exception(tmp_path, error):
    with pytest.raises(error), whole_folder(tmp_path / "out") as folder:
        fail_after_writing(folder / "a", error)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(InterLCMError, match="exists already"), whole_folder(tmp_path / "out"):
        pytest.fail("the block must not run")
    assert (tmp_path / "out" / "mine").read_text() == "mine"


def test_a_folder_under_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InterLCMError, match="can't be made"), whole_folder(tmp_path / "file" / "out"):
        pytest.fail("the block must not run")


def test_a_file_appears_whole_and_replaces(tmp_path):
    out = tmp_path / "a.safetensors"
    out.write_text("old")
    with whole_file(out) as path:
        # No reader of the folder takes it for a whole file, should the program be killed.
        assert path.suffix == ".partial"
        path.write_text("new")
        assert out.read_text() == "old"
    assert out.read_text() == "new"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_file_stays_as_it_was_after_an_exception(tmp_path, error):
    out = tmp_path / "a.txt"
    for before in (None, "old"):
        if before:
            out.write_text(before)
        with pytest.raises(error), whole_file(out) as path:
            fail_after_writing(path, error)
        assert [path.read_text() for path in tmp_path.iterdir()] == ([before] if before else [])


def test_permissions_follow_the_umask(tmp_path):
    mask = os.umask(0o027)
    try:
        with whole_folder(tmp_path / "folder"), whole_file(tmp_path / "file") as path:
            path.touch()
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_the_umask_of_the_process_is_never_changed(tmp_path, monkeypatch):
    # Another thread would make its files with the changed one, or keep it for good.
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("changed the umask"))
    with whole_folder(tmp_path / "folder"), whole_file(tmp_path / "file") as path:
        path.touch()


def test_the_longest_name_that_a_disk_takes(tmp_path):
    for name in ("n" * 255, "顔" * 85):
        with whole_file(tmp_path / name) as path:
            path.touch()
        assert (tmp_path / name).is_file()


def test_a_disk_without_space_is_told_beforehand(tmp_path):
    check_space(tmp_path, 1)
    with pytest.raises(InterLCMError, match=rf"^{tmp_path}: the disk is too full: 1000000000\.00 GB are needed"):
        check_space(tmp_path, 10**18)


KILLED = """
import os, signal, sys
from pathlib import Path
from interlcm_jax.files.atomic import whole_file, whole_folder
with whole_file(Path(sys.argv[1], "a.png")) as file, whole_folder(Path(sys.argv[1], "model")) as folder:
    file.write_text("half")
    (folder / "weights").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def leave_behind(folder):
    """A file and a folder of a process that was killed."""
    assert subprocess.run([sys.executable, "-c", KILLED, folder], timeout=60).returncode == -signal.SIGKILL
    left = sorted(folder.iterdir())
    assert len(left) == 2
    return left


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_what_a_killed_process_left_is_cleared_at_the_next_run(tmp_path):
    leave_behind(tmp_path)
    # Of other programs, and a download that can be gone on with.
    others = [tmp_path / name for name in (".theirs.partial", ".a.0123456789abcdef.partial", "w.pth.01.partial")]
    for path in others:
        path.write_text("theirs")
    with whole_file(tmp_path / "b.png") as path:
        path.write_text("new")
    assert sorted(tmp_path.iterdir()) == sorted([*others, tmp_path / "b.png"])


def test_what_a_process_at_work_writes_is_left_alone(tmp_path):
    program = KILLED.replace("os.kill(os.getpid(), signal.SIGKILL)", "print(flush=True); sys.stdin.read()")
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with whole_file(tmp_path / "b.png") as path:
            path.touch()
        other.stdin.close()
        assert other.wait(60) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "model"]


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_what_another_machine_left_is_cleared_after_a_day(tmp_path):
    for number, left in enumerate(leave_behind(tmp_path)):
        head, _, tail = left.name.rpartition("-")[0].rpartition(".")
        left.rename(left.with_name(f"{head}.{number:08x}-{tail.split('-')[1]}-{'0' * 16}.partial"))
    fresh, old = sorted(tmp_path.iterdir())
    yesterday = time.time() - 90_000
    os.utime(old, (yesterday, yesterday))
    with whole_file(tmp_path / "b.png") as path:
        path.touch()
    assert sorted(tmp_path.iterdir()) == sorted([fresh, tmp_path / "b.png"])
