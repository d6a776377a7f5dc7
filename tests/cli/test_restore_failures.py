"""`interlcm restore --aligned` in process: bad inputs, and requests that can't be carried out."""

import errno
import json
import os
import shutil
from pathlib import Path

import jax
import pytest

from tests.cli.aligned_faces import answering, assert_restored, face, names, restore

pytestmark = pytest.mark.usefixtures("empty_folder")


def bad_files(folder):
    face(folder / "whole.jpg", 1)
    truncated = (folder / "whole.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(truncated[: len(truncated) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("<html>404</html>")
    return [folder / name for name in ("truncated.jpg", "empty.png", "text.png", "missing.png")]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_bad_file_costs_that_file_only(model, tmp_path, capsys, batch_size):
    good = [face(tmp_path / f"good{i}.png", i) for i in range(2)]
    bad = bad_files(tmp_path)
    inputs = [good[0], *bad, good[1]]
    assert restore(model, *inputs, "-o", "out", "--batch-size", batch_size) == 1
    assert names(tmp_path / "out") == ["good0.png", "good1.png"]
    assert_restored(good[1], tmp_path / "out" / "good1.png")
    output = capsys.readouterr()
    assert "restored 2 of 6 images (2 faces) into out" in output.out
    failures = [line for line in output.err.splitlines() if line.startswith("failed: ")]
    assert [line.split(": ")[1] for line in failures] == [str(path) for path in bad]
    for failure, gist in zip(failures, ["truncated", "not an image", "not an image", "no such file"], strict=True):
        assert gist in failure


def test_an_input_that_may_not_be_read_costs_that_file_only(model, tmp_path, capsys, monkeypatch):
    for name in ("a", "b", "c"):
        face(tmp_path / "in" / f"{name}.png")
    original = Path.open

    def forbidden(self, *arguments, **options):
        if self.name == "b.png":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return original(self, *arguments, **options)

    answering(monkeypatch, lambda image: image)
    monkeypatch.setattr(Path, "open", forbidden)
    assert restore(model, "in", "-o", "out") == 1
    assert names(tmp_path / "out") == ["a.png", "c.png"]
    assert "failed: in/b.png: can't be opened (Permission denied)" in capsys.readouterr().err


def test_a_picture_that_cannot_be_written_costs_that_picture_only(model, tmp_path, capsys):
    sources = [face(tmp_path / "in" / name, 1) for name in ("a.png", "sub/b.png")]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").write_text("in the way")
    assert restore(model, "in", "-o", "out") == 1
    assert names(tmp_path / "out") == ["a.png", "sub"]
    assert_restored(sources[0], tmp_path / "out" / "a.png")
    assert "failed: out/sub/b.png: can't be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.png", "-o", "file"], "file: the folder can't be made (File exists)"),
        (["a.png", "-o", "file/out"], "file/out: the folder can't be made (Not a directory)"),
        (["empty", "-o", "out"], "empty: no images in this folder (.bmp, "),
        (["a.png", "-o", "out", "--model", "absent"], "absent: no such file or folder"),
        (["a.png", "-o", "out", "--model", "empty"], "empty: not a model folder (no config.json)"),
        (["a.png", "-o", "out", "--model", "file"], "file: not a model folder"),
        (["a.png", "-o", "out", "--model", "someone/model"], "HF_HUB_OFFLINE"),
        (["a.png", "-o", "out", "--batch-size", "0"], "batch_size is 0, but must be an integer from 1"),
        (["a.png", "-o", "out", "--seed", "-1"], "seed is -1"),
        (["a.png", "-o", "out", "--num-network-calls", "0"], "num_network_calls is 0"),
        (["a.png", "-o", "."], "results would replace these inputs: a.png; choose another folder"),
    ],
)
def test_requests_that_cannot_be_carried_out(model, tmp_path, capsys, arguments, message):
    face(tmp_path / "a.png")
    (tmp_path / "file").write_text("text")
    (tmp_path / "empty").mkdir()
    content = (tmp_path / "a.png").read_bytes()
    assert restore(model, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert names(tmp_path) == ["a.png", "file"]
    assert (tmp_path / "a.png").read_bytes() == content


def test_a_request_that_fails_leaves_no_folder(model, tmp_path):
    image = face(tmp_path / "a.png")
    for wrong in (["--seed", -1], ["--num-network-calls", 99]):
        assert restore(model, image, "-o", "new", *wrong) == 2
    assert not (tmp_path / "new").exists()


def test_a_damaged_model_is_refused(model, tmp_path, capsys):
    damaged = shutil.copytree(model, tmp_path / "model")
    settings = json.loads((damaged / "config.json").read_text())
    settings["networks"]["clip_vision"]["hidden_size"] = 96
    (damaged / "config.json").write_text(json.dumps(settings))
    (damaged / "vae.safetensors").unlink()
    assert restore(damaged, face(tmp_path / "a.png"), "-o", "out") == 2
    assert "CLIP's width and the Visual Encoder's (96 and 48)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required"),
        (["--color-fix", "sepia"], "invalid choice: 'sepia'"),
        (["--dtype", "float64"], "invalid choice: 'float64'"),
        (["--batch-size", "x"], "invalid int value: 'x'"),
    ],
)
def test_arguments_that_are_none(model, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        restore(model, "a.png", *(["-o", "out"] if arguments else []), *arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_an_output_folder_that_takes_no_files_at_all(model, tmp_path, capsys, monkeypatch):
    face(tmp_path / "a.png")

    def read_only(dir):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("interlcm_jax.photos.files.tempfile.TemporaryFile", read_only)
    assert restore(model, "a.png", "-o", "out") == 2
    assert "out: nothing can be written into this folder (Permission denied)" in capsys.readouterr().err


def test_networks_that_give_nan_save_nothing(model, tmp_path, capsys, monkeypatch):
    face(tmp_path / "a.png")
    answering(monkeypatch, lambda image: None)
    assert restore(model, "a.png", "-o", "out") == 1
    assert names(tmp_path / "out") == []
    assert "failed: a.png: the networks gave NaN or infinity for 1 of 1 faces; try float32" in capsys.readouterr().err


def test_a_device_without_memory_is_one_clear_error(model, tmp_path, capsys, monkeypatch):
    face(tmp_path / "a.png")

    def exhausted(image):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.")

    answering(monkeypatch, exhausted)
    assert restore(model, "a.png", "-o", "out") == 2
    assert "memory to restore faces with a batch size of 1: lower the batch size" in capsys.readouterr().err
