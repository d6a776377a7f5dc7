"""`interlcm download --upsampler` from a server on this machine, and `interlcm add --upsampler`."""

import hashlib
import json
import sys

import pytest
import torch

from interlcm_jax.cli.main import main
from interlcm_jax.convert import released
from interlcm_jax.convert.upsampler import CONFIG, read_upsampler
from interlcm_jax.models.upsampler import SRVGGConfig
from tests.file_server import file_server
from tests.parity.upsampler_twin import TorchSRVGG


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Empty folders for models and caches."""
    for name in ("INTERLCM_MODELS", "INTERLCM_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path


@pytest.fixture
def published(tmp_path):
    """A published file, miniature."""
    torch.save({"params": TorchSRVGG(SRVGGConfig.miniature()).state_dict()}, tmp_path / "realesr-general-x4v3.pth")
    return tmp_path / "realesr-general-x4v3.pth"


@pytest.fixture
def server(places, published, monkeypatch):
    """The release."""
    with file_server() as served:
        path, _ = released.UPSAMPLERS["general-x4v3"]
        served.files[f"/{path}"] = published.read_bytes()
        sha256 = hashlib.sha256(published.read_bytes()).hexdigest()
        monkeypatch.setitem(released.UPSAMPLERS, "general-x4v3", (path, sha256))
        yield served


def download(server, *options):
    return main(["download", "--release", server.url, "--upsampler", *map(str, options)])


def test_a_released_upsampler_is_found_by_its_name(server, places, capsys):
    assert download(server, "general-x4v3") == 0
    folder = places / "INTERLCM_MODELS" / "upsamplers" / "general-x4v3"
    output = capsys.readouterr()
    assert f"{folder}: ready for interlcm restore --background-upsampler general-x4v3" in output.out
    assert "BSD-3-Clause" in output.err
    about = json.loads((folder / CONFIG).read_text())
    assert about["origin"] == "xinntao/Real-ESRGAN v0.2.5.0/realesr-general-x4v3.pth"
    assert read_upsampler(folder).config == SRVGGConfig.miniature()
    server.log.clear()
    assert download(server, "general-x4v3") == 0
    assert server.log == []


def test_another_file_than_the_released_one(server, places, capsys):
    server.files = {path: content[::-1] for path, content in server.files.items()}
    assert download(server, "general-x4v3") == 2
    assert "what came isn't the published file (its SHA-256 differs)" in capsys.readouterr().err
    assert not (places / "INTERLCM_MODELS").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["x8plus"], "upsampler 'x8plus' isn't released; choose one of x2plus, x4plus, general-x4v3"),
        (["x2plus", "--task", "inpainting"], "--upsampler goes without --task"),
        (["x2plus", "--release", "file:///"], "file:///: an address begins with https:// or http://"),
    ],
)
def test_requests_that_cannot_be_carried_out(server, capsys, options, message):
    assert download(server, *options) == 2
    assert message in capsys.readouterr().err
    assert server.log == []


def test_without_pytorch_nothing_is_downloaded(server, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert download(server, "general-x4v3") == 2
    assert "pip install 'interlcm-jax[parity]'" in capsys.readouterr().err
    assert server.log == []


def add(*options):
    return main(["add", *map(str, options)])


def test_a_file_is_added(places, published, capsys):
    assert add("--upsampler", published) == 0
    folder = places / "INTERLCM_MODELS" / "upsamplers" / "general-x4v3"
    assert f"{folder}: ready for interlcm restore --background-upsampler general-x4v3" in capsys.readouterr().out
    assert read_upsampler(folder).config == SRVGGConfig.miniature()
    assert add("--upsampler", published) == 2
    assert "exists already" in capsys.readouterr().err
    assert add("--upsampler", published, "--name", "mine") == 0
    assert (folder.parent / "mine" / CONFIG).is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to add: name a file of RetinaFace or ParseNet, or an upsampler's with --upsampler"),
        (["--upsampler", "a.pth", "--name", "../mine"], "'../mine' can't be an upsampler's name"),
        (["--parsenet", "a.pth"], "name a model folder before the file"),
        (["--parsenet", "a.pth", "--name", "mine", "DIR"], "--name is an upsampler's"),
        (["--upsampler", "missing.pth"], "missing.pth: no such file or folder"),
    ],
)
def test_what_cannot_be_added(places, capsys, options, message):
    assert add(*options) == 2
    assert message in capsys.readouterr().err
