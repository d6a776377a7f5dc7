"""Addresses of buckets where paths are wanted: told from paths, and refused before anything is made of them."""

from pathlib import Path

import pytest

import evaluate
import train
from interlcm_jax.cli.main import main
from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.paths import check_local

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


@pytest.mark.parametrize(
    "value", ["folder", "C:/folder", "someone/model", "NAME=folder/a", "localhost:1234", Path("a:b"), None, 3]
)
def test_paths_and_names_pass(value):
    check_local({"value": value, "values": [value]})


def test_the_option_is_named():
    with pytest.raises(InterLCMError, match="out: gs:/b/o is an address"):
        check_local({"inputs": ["in"], "out": Path("gs://b/o")})
