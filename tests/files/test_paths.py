"""Paths and addresses as users give them."""

import argparse
from pathlib import Path

import pytest

import evaluate
import train
from interlcm_jax.cli.main import main
from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.paths import check_address, in_bucket, resolve_paths, to_local, to_path

SMOKE = str(Path(train.__file__).with_name("configs") / "smoke.py")


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (main, ["restore", "ftp://bucket/in", "-o", "out"]),
        (main, ["restore", "in", "-o", "out", "--model", "hf://someone/model"]),
        (main, ["dataset", "file:///faces", "-o", "out"]),
        (evaluate.main, ["--compare", "A=https://bucket/a", "b"]),
        (train.main, [SMOKE, "--resume", "az://bucket/run"]),
        (train.main, [SMOKE, "--run.folder", "gcs://bucket/run"]),
        (train.main, [SMOKE, "--start.model", "hf://someone/model"]),
    ],
)
def test_an_address_of_no_bucket_is_refused(tmp_path, monkeypatch, capsys, command, arguments):
    monkeypatch.chdir(tmp_path)
    assert command(arguments) == 2
    assert ":// isn't read; only paths of this machine and addresses in buckets are" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["gs://bucket/a b/c.png", "GS://bucket/a b/c.png", Path("gs://bucket/a b/c.png")])
def test_an_address_is_a_path(text):
    path = to_path(text)
    assert in_bucket(path)
    assert str(path) == str(path.absolute()) == "gs://bucket/a b/c.png"
    assert to_path(path) is path
    assert str(path.parent / "d") == "gs://bucket/a b/d"
    assert path.relative_to(path.parent).as_posix() == path.name == "c.png"


def test_what_must_be_on_this_machine_says_so():
    with pytest.raises(InterLCMError, match=r"gs://bucket/a: is read from this machine's disk alone; copy it"):
        to_local("gs://bucket/a")
    assert to_local("a") == Path("a")


def test_an_address_needs_a_bucket():
    with pytest.raises(InterLCMError, match="s3://: names no bucket"):
        to_path("s3://")


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "interlcm_jax.files.bucket", None)
    with pytest.raises(InterLCMError, match=r"gs://bucket/a: buckets need pip install 'interlcm-jax\[bucket\]'"):
        to_path("gs://bucket/a")


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


def test_what_a_command_line_gives_becomes_paths(home):
    arguments = argparse.Namespace(
        out=Path("~/out"), inputs=[Path("~/a.png"), Path("~nobody-here/b"), Path("s3://bucket/a")], json=True, n=3
    )
    resolve_paths(arguments)
    assert vars(arguments) == {
        "out": home / "out",
        "inputs": [home / "a.png", Path("~nobody-here/b"), to_path("s3://bucket/a")],
        "json": True,
        "n": 3,
    }


@pytest.mark.parametrize("value", ["folder", "C:/folder", "someone/model", "NAME=folder/a", "localhost:1234", "a:b"])
def test_paths_and_names_pass(value):
    assert check_address("value", value) == value
    assert to_path(value) == Path(value)


@pytest.mark.parametrize("value", ["ftp://b/o", "NAME=ftp://b/o"])
def test_the_option_is_named(value):
    with pytest.raises(InterLCMError, match="out: ftp://b/o: ftp:// isn't read"):
        check_address("out", value)
