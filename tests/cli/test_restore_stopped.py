"""`interlcm restore --aligned` in process: what is left when it is stopped, and how it goes on."""

import errno
import os
from concurrent.futures import Future
from pathlib import Path

import pytest

from tests.cli.aligned_faces import answering, assert_restored, face, names, restore

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_ctrl_c_leaves_whole_files_only(model, tmp_path, capsys, monkeypatch):
    for i in range(3):
        face(tmp_path / "in" / f"{i}.png", i)

    def interrupted(image):
        if len(names(tmp_path / "out")) == 1:
            raise KeyboardInterrupt
        return image

    answering(monkeypatch, interrupted)
    monkeypatch.setattr("interlcm_jax.runtime.overlap.ThreadPoolExecutor", lambda workers: AtOnce())
    assert restore(model, "in", "-o", "out") == 130
    assert names(tmp_path / "out") == ["0.png"]
    assert "interlcm: interrupted" in capsys.readouterr().err


class AtOnce:
    """A pool that does its work when it is given it."""

    def submit(self, work, *arguments):
        future = Future()
        try:
            future.set_result(work(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def shutdown(self, **options):
        pass


def test_ctrl_c_while_a_picture_is_written(model, tmp_path, monkeypatch):
    face(tmp_path / "a.png")

    def interrupted(*paths):
        raise KeyboardInterrupt

    answering(monkeypatch, lambda image: image)
    monkeypatch.setattr(os, "replace", interrupted)
    assert restore(model, "a.png", "-o", "out") == 130
    assert names(tmp_path / "out") == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_an_output_folder_that_takes_no_more_ends_the_run(model, tmp_path, capsys, monkeypatch, number):
    for i in range(3):
        face(tmp_path / "in" / f"{i}.png", i)
    original = Path.write_bytes

    def write_bytes(self, data):
        if self.name.startswith(".1.png"):
            raise OSError(number, os.strerror(number), str(self))
        return original(self, data)

    answering(monkeypatch, lambda image: image)
    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    assert restore(model, "in", "-o", "out", "--workers", 1) == 2
    error = capsys.readouterr().err
    assert f"out/1.png: can't be written ({os.strerror(number)}); 1 images are done, --skip-existing does" in error
    assert set(names(tmp_path / "out")) <= {"0.png", "2.png"}
    monkeypatch.undo()
    assert restore(model, tmp_path / "in", "-o", tmp_path / "out", "--skip-existing") == 0
    assert names(tmp_path / "out") == ["0.png", "1.png", "2.png"]


def test_what_is_there_is_skipped(model, tmp_path, capsys):
    for i in range(3):
        face(tmp_path / "in" / f"{i}.png", i)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "1.png").write_text("done before")
    assert restore(model, "in", "-o", "out", "--skip-existing") == 0
    assert names(tmp_path / "out") == ["0.png", "1.png", "2.png"]
    assert (tmp_path / "out" / "1.png").read_text() == "done before"
    output = capsys.readouterr().out
    assert "restored 2 of 2 images" in output
    assert "skipped 1 that were there already" in output
    assert restore(model, "in", "-o", "out", "--skip-existing") == 0
    assert "skipped 3 that" in capsys.readouterr().out
    # Without the flag everything is done again.
    assert restore(model, "in", "-o", "out") == 0
    assert_restored(tmp_path / "in" / "1.png", tmp_path / "out" / "1.png")
