"""`interlcm restore --aligned` in process: files and folders, bad inputs, and what is left when it is stopped."""

import errno
import json
import os
import shutil
from concurrent.futures import Future
from pathlib import Path

import jax
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
    return main(["restore", "--aligned", "--grey", "colour", "--model", str(model), *map(str, arguments)])


def names(folder):
    """All files below, hidden ones included."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def assert_restored(source, target, **options):
    """The picture is what the model makes of the input, but for rounding: the command runs on all eight devices."""
    pixels = fit_square(read_image(source), SIZE)[None]
    expected = np.asarray(miniature_model().restore(pixels, **options))[0]
    found = np.asarray(Image.open(target).convert("RGB"), int)
    assert np.abs(found - expected).max() <= 1, source


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
    assert "failed: " not in output.err


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


def answering(monkeypatch, answer):
    """Every model's `restore_all` gives what `answer` gives for each face; the options it was given."""
    seen = []

    def restore_all(self, faces, **options):
        seen.append(options)
        return map(answer, faces)

    monkeypatch.setattr(InterLCM, "restore_all", restore_all)
    return seen


def test_options_reach_the_model(model, tmp_path, monkeypatch):
    seen = answering(monkeypatch, lambda face: face)
    loaded = []
    original = InterLCM.from_pretrained.__func__

    def from_pretrained(cls, folder, dtype, **options):
        loaded.append((folder, dtype))
        return original(cls, folder, dtype, **options)

    monkeypatch.setattr(InterLCM, "from_pretrained", classmethod(from_pretrained))
    options = [
        "--seed",
        5,
        "--color-fix",
        "adain",
        "--num-network-calls",
        1,
        "--batch-size",
        2,
        "--fidelity",
        0.25,
        "--vae-slice",
        1,
    ]
    faces = [face(tmp_path / f"{name}.png") for name in "ab"]
    assert restore(model, *faces, "-o", "out", *options, "--dtype", "bfloat16") == 0
    arguments = {"seed": 5, "color_fix": "adain", "num_network_calls": 1, "fidelity": 0.25, "vae_slice": 1}
    assert (seen, loaded) == ([arguments | {"batch_size": 2}], [(model, "bfloat16")])
    # A batch of more than there are images would only be padding.
    assert restore(model, faces[0], "-o", "out", *options) == 0
    assert seen[-1] == arguments | {"batch_size": 1}


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
    assert_restored(good[1], tmp_path / "out" / "good1.png")
    output = capsys.readouterr()
    assert "restored 2 of 6 images (2 faces) into out" in output.out
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

    def interrupted(image):
        if len(names(tmp_path / "out")) == 1:
            raise KeyboardInterrupt
        return image

    answering(monkeypatch, interrupted)
    monkeypatch.setattr("interlcm_jax.overlap.ThreadPoolExecutor", lambda workers: AtOnce())
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


def test_the_summary_as_json(model, tmp_path, capsys):
    good = [face(tmp_path / f"{name}.png", 1) for name in ("done", "there")]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "there.png").write_text("done before")
    assert restore(model, *good, "missing.png", "-o", "out", "--skip-existing", "--json") == 1
    summary = json.loads(capsys.readouterr().out)
    assert summary.pop("seconds") > 0
    assert summary == {
        "restored": [{"input": str(good[0]), "output": "out/done.png", "faces": 1}],
        "no_face": [],
        "failed": [{"input": "missing.png", "error": "missing.png: no such file"}],
        "skipped": [{"input": str(good[1]), "output": "out/there.png"}],
    }


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


def test_an_output_folder_that_takes_no_files_at_all(model, tmp_path, capsys, monkeypatch):
    face(tmp_path / "a.png")

    def read_only(dir):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("interlcm_jax.cli.restore.tempfile.TemporaryFile", read_only)
    assert restore(model, "a.png", "-o", "out") == 2
    assert "out: nothing can be written into this folder (Permission denied)" in capsys.readouterr().err


def test_networks_that_give_nan_save_nothing(model, tmp_path, capsys, monkeypatch):
    face(tmp_path / "a.png")
    answering(monkeypatch, lambda image: None)
    assert restore(model, "a.png", "-o", "out") == 1
    assert names(tmp_path / "out") == []
    assert "failed: a.png: the networks gave NaN or infinity for 1 faces; try float32" in capsys.readouterr().err


def test_a_device_without_memory_is_one_clear_error(model, tmp_path, capsys, monkeypatch):
    face(tmp_path / "a.png")

    def exhausted(image):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.")

    answering(monkeypatch, exhausted)
    assert restore(model, "a.png", "-o", "out") == 2
    assert "the device has too little memory: lower --batch-size" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["jpg", "webp", "tiff"])
def test_other_formats(model, tmp_path, suffix):
    source = face(tmp_path / "a.png", 1)
    assert restore(model, source, "-o", "out", "--format", suffix) == 0
    assert names(tmp_path / "out") == [f"a.{suffix}"]
    with Image.open(tmp_path / "out" / f"a.{suffix}") as image:
        assert image.format == {"jpg": "JPEG"}.get(suffix, suffix.upper())


def test_near_grey_faces_keep_their_tint(model, tmp_path):
    sepia = tmp_path / "sepia.png"
    grey = np.random.default_rng(0).integers(40, 200, (8, 8, 1), np.uint8).repeat(8, 0).repeat(8, 1)
    Image.fromarray(grey + np.array([20, 10, 0], np.uint8)).save(sepia)
    colours = {}
    for policy in ("auto", "keep", "colour"):
        assert restore(model, sepia, "-o", policy, "--grey", policy) == 0
        colours[policy] = np.asarray(Image.open(tmp_path / policy / "sepia.png"), int)
    np.testing.assert_array_equal(colours["auto"], colours["keep"])
    inside = ((colours["keep"] > 0) & (colours["keep"] < 255)).all(axis=-1)
    assert inside.mean() > 0.5
    assert np.abs(colours["keep"][inside][:, 0] - colours["keep"][inside][:, 2] - 20).max() <= 1
    assert np.ptp(colours["colour"][..., 0] - colours["colour"][..., 2]) > 100
