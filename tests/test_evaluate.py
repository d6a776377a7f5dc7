"""`evaluate.py`: its exit codes, what it says and writes, and restoring that goes on where it was stopped."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import evaluate
from interlcm_jax.evaluation import restoring
from tests.evaluation.pictures import write_set
from tests.miniature import miniature_model

REPOSITORY = Path(evaluate.__file__).parent


@pytest.fixture
def faces(tmp_path):
    write_set(tmp_path / "set", 4, size=64)
    return tmp_path / "set"


@pytest.fixture
def one_device(monkeypatch):
    """A program for eight would be longer to compile, and show no more here."""
    monkeypatch.setattr(restoring, "replicated_sharding", lambda: jax.sharding.SingleDeviceSharding(jax.devices()[0]))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    miniature_model().save_pretrained(folder)
    return folder


def run(*arguments) -> int:
    return evaluate.main([str(argument) for argument in arguments])


def test_the_script_names_what_it_cannot_use(faces, tmp_path):
    (faces / "restored" / "002.png").write_bytes(b"broken")
    command = [sys.executable, str(REPOSITORY / "evaluate.py"), "--metrics", "psnr", "ssim", "-o", "out"]
    command += ["--restored", str(faces / "restored"), "--reference", str(faces / "hq"), "--lq", str(faces / "lq")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr
    assert "3 images" in done.stdout
    assert "002.png: not an image" in done.stderr
    assert "4/4" in done.stderr
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert [row["name"] for row in scores["rows"]] == ["LQ", "restored", "HQ"]
    assert scores["reference"]["sha256"] in done.stdout
    assert (tmp_path / "out" / "report.html").read_text().endswith("</html>\n")


def test_a_model_restores_and_goes_on_where_it_was_stopped(faces, one_device, model, tmp_path, capsys, monkeypatch):
    options = ["--model", model, "--data", faces, "-o", tmp_path / "out", "--metrics", "psnr"]
    assert run(*options) == 0
    first = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert [row["name"] for row in first["rows"]] == ["LQ", "restored", "HQ"]
    assert first["count"] == 4
    assert first["restoration"]["model"] == restoring.model_digest(model)
    restored = tmp_path / "out" / "restored"
    kept = (restored / "000.png").stat().st_mtime_ns
    (restored / "003.png").unlink()
    capsys.readouterr()
    assert run(*options) == 0
    assert "3 of 4 images were restored already" in capsys.readouterr().err
    assert (restored / "000.png").stat().st_mtime_ns == kept
    assert json.loads((tmp_path / "out" / "scores.json").read_text()) == first
    assert run(*options, "--seed", 1) == 2
    assert "was begun in another way (seed was 0 and is 1)" in capsys.readouterr().err
    # All restored: no model is needed any more.
    monkeypatch.setattr(restoring, "restore_files", pytest.fail)
    assert run(*options) == 0


def test_a_face_that_cannot_be_restored_costs_itself_only(faces, one_device, model, tmp_path, capsys):
    (faces / "lq" / "001.png").write_bytes(b"broken")
    assert run("--model", model, "--data", faces, "-o", tmp_path / "out", "--metrics", "psnr") == 1
    printed = capsys.readouterr()
    assert "3 images" in printed.out
    assert "lq/001.png: not an image" in printed.err
    assert "hq/001.png: nothing restored of this name" in printed.err


def test_names_that_are_no_text_steer_no_terminal(faces, capsys, tmp_path):
    """An escape sequence, and bytes that are no UTF-8."""
    for i, name in enumerate((b"\x1b[2J.png", b"\xff.png")):
        for folder in ("hq", "lq", "restored"):
            os.rename(faces / folder / f"00{i}.png", faces / folder / os.fsdecode(name))
    (faces / "restored" / "\x1b[2J.png").write_bytes(b"broken")
    folders = ["--restored", faces / "restored", "--reference", faces / "hq", "--lq", faces / "lq"]
    assert run(*folders, "--metrics", "psnr", "-o", tmp_path / "out\x1b[2J") == 1
    printed = capsys.readouterr()
    assert "\x1b[2J" not in printed.out + printed.err
    assert "restored/\\x1b[2J.png: not an image" in printed.err
    scores = json.loads((tmp_path / "out\x1b[2J" / "scores.json").read_text())
    assert (scores["count"], os.fsdecode(b"\xff") in scores["rows"][1]["images"]) == (3, True)


def test_methods_side_by_side(faces, capsys, tmp_path):
    folders = [faces / "restored", f"worse={faces / 'lq'}"]
    assert run("--compare", *folders, "--data", faces, "--metrics", "psnr", "-o", tmp_path / "out") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    names = [line[0] for line in lines]
    assert names[-4:] == ["LQ", "restored", "worse", "HQ"]
    values = {line[0]: line[2] for line in lines[-4:]}
    assert values["LQ"] == values["worse"] < values["restored"]
    found = json.loads((tmp_path / "out" / "scores.json").read_text())["differences"]["psnr"]["worse"]
    assert found["high"] < 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "nothing to score"),
        (["--restored", "none"], "none: no such folder"),
        (["--restored", "restored", "--reference", "empty"], "empty: no images in this folder"),
        (["--restored", "restored", "--reference", "other"], "no image has a reference of the same name"),
        (["--restored", "restored", "--protocol", "mine"], "no protocol is called 'mine'"),
        (["--restored", "restored", "--metrics", "dists"], "no metric dists"),
        (["--restored", "restored", "--weights", "nowhere"], "nowhere: weights are a folder"),
        (["--restored", "restored", "--test-set", "lfw-test"], "give that as well"),
        (["--restored", "restored", "--data", ".", "--test-set", "lfw-test"], "lfw_cropped_faces/"),
        (["--restored", "restored", "--data", ".", "--lq", "lq"], "--data stands for"),
        (["--compare", "restored", "x/../restored"], "restored can't name a method"),
        (["--model", "restored"], "--model needs --data"),
        (["--model", "restored", "--data", "hq", "-o", "out"], "not a model folder"),
        (["--restored", "restored", "--batch-size", "0"], "batch_size is 0"),
        (["--restored", "restored", "--workers", "0"], "--workers is 0"),
    ],
)
def test_what_cannot_be_done_is_named(faces, monkeypatch, capsys, options, words):
    monkeypatch.chdir(faces)
    (faces / "empty").mkdir()
    (faces / "x").mkdir()
    (faces / "other").mkdir()
    (faces / "hq" / "000.png").rename(faces / "other" / "else.png")
    (faces / "lq").rename(faces / "low")
    assert run(*options) == 2
    assert words in capsys.readouterr().err
    assert not (faces / "out").exists()


def test_ctrl_c(monkeypatch, capsys):
    def interrupt(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "run", interrupt)
    assert run("--restored", "x") == 130
    assert "interrupted" in capsys.readouterr().err


def test_everything_there_is_to_ask_for(capsys):
    assert run("--list") == 0
    text = capsys.readouterr().out
    for word in ("basicsr", "psnr-matched", "lpips.safetensors", "webphoto-test: 407 images"):
        assert word in text
