"""`kill -9` at five points, and the same command again: the same file, bit for bit, as unbroken."""

import signal
import subprocess
import sys

import pytest

from interlcm_jax.photos.video.restore import FINDING, RESTORING
from tests.photos.video.clips import write_clip
from tests.photos.video.made import faces_moving

POINTS = [(FINDING, 5), (FINDING, 20), (RESTORING, 3), (RESTORING, 21), ("join", 2)]


def run(*arguments):
    command = [sys.executable, "-m", "tests.photos.video.stopped", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.long
def test_a_killed_run_goes_on_and_gives_the_same_file(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", faces_moving(26), sound=True)
    whole, result = tmp_path / "whole.mp4", tmp_path / "out.mp4"
    unbroken = run(clip, whole, "never", 0)
    assert unbroken.returncode == 0, unbroken.stderr
    for point in POINTS:
        assert run(clip, result, *point).returncode == -signal.SIGKILL, point
        assert not result.exists()
        again = run(clip, result, "never", 0)
        assert again.returncode == 0, again.stderr
        assert result.read_bytes() == whole.read_bytes(), point
        result.unlink()
    # One killed again and again, each time further on.
    for point in POINTS:
        assert run(clip, result, *point).returncode == -signal.SIGKILL, point
    assert run(clip, result, "never", 0).returncode == 0
    assert result.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "out.mp4", "whole.mp4"]
