"""Addresses of buckets where paths are wanted: told from paths, and refused before anything is made of them."""

import argparse
from pathlib import Path

import pytest

import evaluate
import train
from interlcm_jax.cli.main import main
from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.paths import check_local, expand_home

SMOKE = str(Path(train.__file__).with_name("configs") / "smoke.py")


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (main, ["restore", "gs://bucket/in", "-o", "out"]),
        (main, ["restore", "in", "--out=s3://bucket/out"]),
        (main, ["restore", "in", "-o", "out", "--model", "hf://someone/model"]),
        (main, ["dataset", "file:///faces", "-o", "out"]),
        (main, ["export", "gs://bucket/run", "-o", "out"]),
        (main, ["compile", "gs://bucket/model", "-o", "out"]),
        (evaluate.main, ["--restored", "gs://bucket/restored"]),
        (evaluate.main, ["--compare", "A=gs://bucket/a", "b"]),
        (train.main, ["gs://bucket/config.py"]),
        (train.main, [SMOKE, "--resume", "gs://bucket/run"]),
        (train.main, [SMOKE, "--run.folder", "gs://bucket/run"]),
        (train.main, [SMOKE, "--data.path", "s3://bucket/faces"]),
        (train.main, [SMOKE, "--start.model", "gs://bucket/model"]),
    ],
)
def test_an_address_is_refused(tmp_path, monkeypatch, capsys, command, arguments):
    monkeypatch.chdir(tmp_path)
    assert command(arguments) == 2
    assert "is an address, but only paths of this machine are taken" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("command", "arguments", "missing"),
    [
        (main, ["restore", "~/in/*.png", "--out=~/out"], "in/*.png"),
        (main, ["restore", "in.png", "-o=~/out", "--model=~/model"], "model"),
        (main, ["dataset", "~/faces", "--out=~/out"], "faces"),
        (evaluate.main, ["--restored=~/restored"], "restored"),
        (train.main, ["~/config.py"], "config.py"),
    ],
)
def test_the_home_folder_is_found_where_a_shell_leaves_it(home, monkeypatch, capsys, command, arguments, missing):
    monkeypatch.chdir(home)
    assert command(arguments) == 2
    assert str(home / missing) in capsys.readouterr().err
    assert list(home.iterdir()) == []


def test_results_go_to_the_home_folder(home):
    arguments = argparse.Namespace(out=Path("~/out"), inputs=[Path("~/a.png"), Path("~nobody-here/b")], json=True, n=3)
    expand_home(arguments)
    assert vars(arguments) == {
        "out": home / "out",
        "inputs": [home / "a.png", Path("~nobody-here/b")],
        "json": True,
        "n": 3,
    }


@pytest.mark.parametrize(
    "value", ["folder", "C:/folder", "someone/model", "NAME=folder/a", "localhost:1234", Path("a:b"), None, 3]
)
def test_paths_and_names_pass(value):
    check_local({"value": value, "values": [value]})


def test_the_option_is_named():
    with pytest.raises(InterLCMError, match="out: gs:/b/o is an address"):
        check_local({"inputs": ["in"], "out": Path("gs://b/o")})
