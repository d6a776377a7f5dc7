"""`interlcm restore` in process: files and folders, bad inputs, and what is left behind when it is stopped."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from interlcm_jax import InterLCM
from interlcm_jax.cli.main import main
from interlcm_jax.imaging.io import fit_square, read_image
from tests.miniature import miniature_model

SIZE = 64


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    miniature_model().save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    """Runs in an empty folder, so that relative paths work and strays are seen."""
    monkeypatch.chdir(tmp_path)


def face(path, seed=0, size=(SIZE, SIZE), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert(mode).save(path)
    return path


def restore(model, *arguments):
    return main(["restore", "--aligned", "--model", str(model), *map(str, arguments)])


def names(folder):
    """All files below, hidden ones included."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def assert_restored(source, target, **options):
    """The picture is what the model makes of the input."""
    pixels = fit_square(read_image(source), SIZE)[None]
    expected = np.asarray(miniature_model().restore(pixels, **options))[0]
    np.testing.assert_array_equal(np.asarray(Image.open(target)), expected, err_msg=str(source))


def test_folders_keep_their_structure_and_files_go_to_the_top(model, tmp_path, capsys):
    folder = tmp_path / "in"
    face(folder / "a.png", 1)
    face(folder / "sub" / "deeper" / "a.jpg", 2)
    face(folder / "sub" / "b.WEBP", 3)
    (folder / "sub" / "notes.txt").write_text("not an image")
    face(tmp_path / "single.bmp", 4)
    assert restore(model, folder, tmp_path / "single.bmp", "-o", tmp_path / "out") == 0
    assert names(tmp_path / "out") == ["a.png", "single.png", "sub/b.png", "sub/deeper/a.png"]
    for source, target in (
        (folder / "a.png", "a.png"),
        (folder / "sub" / "deeper" / "a.jpg", "sub/deeper/a.png"),
        (folder / "sub" / "b.WEBP", "sub/b.png"),
        (tmp_path / "single.bmp", "single.png"),
    ):
        assert_restored(source, tmp_path / "out" / target)
    output = capsys.readouterr()
    assert "restored 4 of 4 images" in output.out
    assert "failed" not in output.err


def test_the_same_name_in_two_inputs_costs_neither(model, tmp_path):
    sources = [face(tmp_path / name, seed) for seed, name in enumerate(["x/a.png", "y/a.png", "x/a.jpg", "x/a_2.png"])]
    assert restore(model, *sources, "-o", "out") == 0
    assert names(tmp_path / "out") == ["a.png", "a_2.png", "a_2_2.png", "a_3.png"]
    for source, target in zip(sources, ["a.png", "a_2.png", "a_3.png", "a_2_2.png"], strict=True):
        assert_restored(source, tmp_path / "out" / target)


@pytest.mark.parametrize(
    ("name", "size", "mode"),
    [
        ("odd.png", (71, 53), "RGB"),
        ("tiny.png", (1, 1), "RGB"),
        ("grey.png", (64, 64), "L"),
        ("alpha.png", (64, 64), "RGBA"),
        ("palette.png", (64, 64), "P"),
        ("two words & more (1).png", (64, 64), "RGB"),
        ("Grüße 顔 🙂.png", (64, 64), "RGB"),
        (".hidden.png", (64, 64), "RGB"),
        ("two.dots.png", (64, 64), "RGB"),
    ],
)
def test_pictures_of_every_kind_and_name(model, tmp_path, name, size, mode):
    source = face(tmp_path / "in" / name, 7, size, mode)
    assert restore(model, source, "-o", "out") == 0
    assert names(tmp_path / "out") == [name]
    assert_restored(source, tmp_path / "out" / name)


def test_options_reach_the_model(model, tmp_path, monkeypatch):
    seen = []
    original = InterLCM.from_pretrained.__func__

    def from_pretrained(cls, folder, dtype):
        seen.append((folder, dtype))
        return original(cls, folder, dtype)

    def record(self, images, **options):
        seen.append((images.shape, options))
        return images

    monkeypatch.setattr(InterLCM, "from_pretrained", classmethod(from_pretrained))
    monkeypatch.setattr(InterLCM, "restore", record)
    options = ["--seed", 5, "--color-fix", "adain", "--num-network-calls", 1, "--batch-size", 2, "--dtype", "bfloat16"]
    faces = [face(tmp_path / f"{name}.png") for name in "ab"]
    assert restore(model, *faces, "-o", "out", *options) == 0
    arguments = {"seed": 5, "color_fix": "adain", "num_network_calls": 1}
    assert seen == [(str(model), "bfloat16"), ((2, SIZE, SIZE, 3), arguments)]
    # A batch of more than there are images would only be padding.
    assert restore(model, faces[0], "-o", "out", *options) == 0
    assert seen[-1] == ((1, SIZE, SIZE, 3), arguments)


def test_a_request_that_fails_leaves_no_folder(model, tmp_path):
    image = face(tmp_path / "a.png")
    for wrong in (["--seed", -1], ["--num-network-calls", 99]):
        assert restore(model, image, "-o", "new", *wrong) == 2
    assert not (tmp_path / "new").exists()


def test_the_batch_size_changes_no_picture(model, tmp_path):
    for i in range(4):
        face(tmp_path / "in" / f"{i}.png", i)
    for size in (1, 3):
        assert restore(model, "in", "-o", f"out{size}", "--batch-size", size) == 0
    assert names(tmp_path / "out1") == names(tmp_path / "out3") == [f"{i}.png" for i in range(4)]
    for i in range(4):
        alone, batched = (np.asarray(Image.open(tmp_path / f"out{size}" / f"{i}.png"), int) for size in (1, 3))
        assert np.abs(alone - batched).max() <= 1


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
    if batch_size == 1:
        assert_restored(good[1], tmp_path / "out" / "good1.png")
    output = capsys.readouterr()
    assert "restored 2 of 6 images into out" in output.out
    failures = [line for line in output.err.splitlines() if line.startswith("failed: ")]
    assert [line.split(": ")[1] for line in failures] == [str(path) for path in bad]
    for failure, gist in zip(failures, ["truncated", "not an image", "not an image", "no such file"], strict=True):
        assert gist in failure


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
        (["a.png", "-o", "out", "--batch-size", "0"], "--batch-size is 0, but must be at least 1"),
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


def test_ctrl_c_leaves_whole_files_only(model, tmp_path, capsys, monkeypatch):
    for i in range(3):
        face(tmp_path / "in" / f"{i}.png", i)
    calls = []

    def interrupted(self, images, **options):
        calls.append(images)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return images

    monkeypatch.setattr(InterLCM, "restore", interrupted)
    assert restore(model, "in", "-o", "out") == 130
    assert names(tmp_path / "out") == ["0.png"]
    assert "interlcm: interrupted" in capsys.readouterr().err


def test_ctrl_c_while_a_picture_is_written(model, tmp_path, monkeypatch):
    face(tmp_path / "a.png")

    def interrupted(*paths):
        raise KeyboardInterrupt

    monkeypatch.setattr(InterLCM, "restore", lambda self, images, **options: images)
    monkeypatch.setattr(os, "replace", interrupted)
    assert restore(model, "a.png", "-o", "out") == 130
    assert names(tmp_path / "out") == []
