"""`interlcm restore` in process: what its options do, what it says, its exit codes, and how it is stopped."""

import errno
import gc
import json
import os
import shutil
import signal
import time
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from interlcm_jax import InterLCM, RestoreOptions
from interlcm_jax.cli.main import main
from interlcm_jax.faces.mtcnn_detector import MTCNN
from tests.cli.aligned_faces import answering, assert_restored, face, names, restore

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_folders_files_and_a_bad_one(model, tmp_path, capsys):
    face(tmp_path / "in" / "a.png", 1)
    face(tmp_path / "in" / "sub" / "b.WEBP", 2)
    (tmp_path / "in" / "text.png").write_text("<html>404</html>")
    face(tmp_path / "single.bmp", 3, (71, 53))
    assert restore(model, "in", "single.bmp", "missing.png", "-o", "out", "--batch-size", 2) == 1
    assert names(tmp_path / "out") == ["a.png", "single.png", "sub/b.png"]
    for source, target in (("in/a.png", "a.png"), ("in/sub/b.WEBP", "sub/b.png"), ("single.bmp", "single.png")):
        assert_restored(tmp_path / source, tmp_path / "out" / target)
    output = capsys.readouterr()
    assert "restored 3 of 5 images (3 faces) into out" in output.out
    failures = [line for line in output.err.splitlines() if line.startswith("failed: ")]
    assert [line.split(": ")[1:3] for line in failures] == [
        ["in/text.png", "not an image (of no format that is read"],
        ["missing.png", "no such file"],
    ]


def test_whole_photos_and_the_summary_of_those_without_a_face(model, tmp_path, capsys, monkeypatch):
    answering(monkeypatch, lambda face: face // 2)
    Image.fromarray(data.astronaut()).save("a.png")
    Image.fromarray(data.brick()).save("wall.png")
    assert main(["restore", "--model", str(model), "wall.png", "a.png", "-o", "out", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["no_face"] == ["wall.png"]
    assert summary["restored"] == [{"input": "a.png", "output": "out/a.png", "faces": 1, "left": 0}]
    assert names(tmp_path / "out") == ["a.png"]


def test_every_option_reaches_the_restoration(model, tmp_path, monkeypatch):
    seen, loaded = [], []
    original = InterLCM.from_pretrained.__func__

    def from_pretrained(cls, folder, dtype, **options):
        loaded.append((folder, dtype))
        return original(cls, folder, dtype, **options)

    def restore_files(model, jobs, out, options, **others):
        seen.append((jobs, out, options, others))
        return []

    monkeypatch.setattr(InterLCM, "from_pretrained", classmethod(from_pretrained))
    monkeypatch.setattr("interlcm_jax.photos.files.restore_files", restore_files)
    face(tmp_path / "a.png")
    flags = ["--seed", 5, "--color-fix", "adain", "--num-network-calls", 1, "--fidelity", 0.25, "--vae-slice", 3]
    flags += ["--batch-size", 2, "--workers", 7, "--format", "webp", "--save-faces", "--comparison"]
    flags += ["--upscale", 4, "--faces", "0,2", "--gray", "keep", "--detector", "mtcnn", "--dtype", "bfloat16"]
    flags += ["--min-face", 20, "--max-faces", 3, "--detection-threshold", 0.9]
    assert main(["restore", "--model", str(model), "a.png", "-o", "out", *map(str, flags)]) == 0
    [([job], out, options, others)] = seen
    assert (job, out) == ((Path("a.png"), Path("out/a.webp")), Path("out"))
    choice = {"faces": "0,2", "min_face": 20, "max_faces": 3, "detection_threshold": 0.9}
    assert options == RestoreOptions(aligned=False, upscale=4, gray="keep", **choice)
    assert isinstance(others.pop("detector"), MTCNN)
    assert others.pop("parser") is None
    assert others.pop("upsampler") is None
    assert callable(others.pop("done"))
    assert others == {
        "seed": 5,
        "color_fix": "adain",
        "num_network_calls": 1,
        "fidelity": 0.25,
        "vae_slice": 3,
        "batch_size": 2,
        "workers": 7,
        "save_faces": True,
        "comparison": True,
    }
    assert loaded == [(model, "bfloat16")]


def test_what_is_there_is_skipped(model, tmp_path, capsys, monkeypatch):
    answering(monkeypatch, lambda face: face)
    good = [face(tmp_path / f"{name}.png", 1) for name in ("done", "there")]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "there.png").write_text("from an earlier run")
    assert restore(model, *good, "missing.png", "-o", "out", "--skip-existing", "--json") == 1
    summary = json.loads(capsys.readouterr().out)
    assert summary.pop("seconds") > 0
    assert summary == {
        "restored": [{"input": str(good[0]), "output": "out/done.png", "faces": 1, "left": 0}],
        "no_face": [],
        "failed": [{"input": "missing.png", "error": "missing.png: no such file"}],
        "skipped": [{"input": str(good[1]), "output": "out/there.png"}],
    }
    assert (tmp_path / "out" / "there.png").read_text() == "from an earlier run"
    # Where all are there, no model is loaded; without the flag everything is done again.
    with monkeypatch.context() as patch:
        patch.setattr(InterLCM, "from_pretrained", None)
        assert restore(model, *good, "-o", "out", "--skip-existing", "--json") == 0
        assert len(json.loads(capsys.readouterr().out)["skipped"]) == 2
        assert restore(model, *good, "-o", "out", "--skip-existing") == 0
        assert "skipped 2 that were there already" in capsys.readouterr().out
    assert restore(model, *good, "-o", "out") == 0
    assert np.asarray(Image.open(tmp_path / "out" / "there.png")).shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.png", "-o", "file"], "file: the folder can't be made (File exists)"),
        (["a.png", "-o", "file/out"], "file/out: the folder can't be made (Not a directory)"),
        (["empty", "-o", "out"], "empty: no images in this folder (.apng, "),
        (["a.png", "-o", "out", "--model", "absent"], "absent: no such file or folder"),
        (["a.png", "-o", "out", "--model", "empty"], "empty: not a model folder (no config.json)"),
        (["a.png", "-o", "out", "--model", "file"], "file: not a model folder"),
        (["a.png", "-o", "out", "--model", "someone/model"], "HF_HUB_OFFLINE"),
        (["a.png", "-o", "out", "--batch-size", "0"], "batch_size is 0, but must be an integer from 1"),
        (["a.png", "-o", "out", "--seed", "-1"], "seed is -1"),
        (["a.png", "-o", "out", "--num-network-calls", "0"], "num_network_calls is 0"),
        (["a.png", "-o", "out", "--upscale", "0"], "upscale is 0.0, but must be a number from 1 to 16"),
        (["a.png", "-o", "out", "--fidelity", "2"], "fidelity is 2.0, but must be a number from 0 to 1"),
        (["a.png", "-o", "out", "--workers", "0"], "--workers is 0"),
        (["a.png", "-o", "out", "--process-id", "0"], "belong together: give all three"),
        (
            ["a.png", "-o", "out", "--process-id", "2", "--num-processes", "2", "--coordinator", "localhost:1"],
            "--process-id is 2",
        ),
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
    assert not (tmp_path / "out").exists()


def test_a_detector_whose_weights_are_not_there(model, tmp_path, capsys):
    face(tmp_path / "a.png")
    assert main(["restore", "--model", str(model), "a.png", "-o", "out", "--detector", "retinaface"]) == 2
    assert "no RetinaFace in this model folder; interlcm add --retinaface FILE puts it there" in capsys.readouterr().err


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


def test_an_output_folder_that_takes_no_more(model, tmp_path, capsys, monkeypatch):
    def write_bytes(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    source = face(tmp_path / "a.png")
    answering(monkeypatch, lambda image: image)
    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    assert restore(model, source, "-o", "out") == 2
    error = capsys.readouterr().err
    assert "out/a.png: can't be written (No space left on device); 0 images are done, --skip-existing does the" in error


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_heeded_wherever_it_comes(model, tmp_path, monkeypatch, capsys, number):
    def collected(phase, info):
        gc.callbacks.remove(collected)
        signal.raise_signal(number)

    def interrupted(image):
        gc.callbacks.append(collected)
        gc.collect()
        time.sleep(10)

    answering(monkeypatch, interrupted)
    assert restore(model, face(tmp_path / "a.png"), "-o", "out") == 130
    assert "interlcm: interrupted" in capsys.readouterr().err
    assert names(tmp_path / "out") == []
