"""The release's files for the tests of `interlcm convert`, and a server of them for those of `interlcm download`."""

import io
import shutil

import huggingface_hub
import pytest
import torch

from interlcm_jax.convert import optional, released
from interlcm_jax.convert.released import CLIP, LCM, RELEASED
from interlcm_jax.faces.parsenet import ParseNetConfig
from interlcm_jax.faces.retinaface import RetinaFaceConfig
from interlcm_jax.files import fetch
from interlcm_jax.model_folder import ModelConfig
from tests.file_server import file_server
from tests.parity.bridge import randomize
from tests.parity.parsenet_twin import TorchParseNet
from tests.parity.release import Release
from tests.parity.release_files import SPATIAL, VISUAL, convert
from tests.parity.retinaface_twin import TorchRetinaFace


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """The release's files, miniature."""
    folder = tmp_path_factory.mktemp("release")
    Release.random(ModelConfig.miniature()).save(folder)
    return folder


@pytest.fixture(scope="session")
def converted(files, tmp_path_factory):
    """The model folder that whole files give."""
    out = tmp_path_factory.mktemp("converted") / "model"
    assert convert(files, out) == 0
    return out


@pytest.fixture
def release(files, tmp_path):
    """A copy to break."""
    return shutil.copytree(files, tmp_path / "release")


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Empty folders for models and caches, and no wait between retries."""
    for name in ("INTERLCM_MODELS", "INTERLCM_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetch, "FIRST_WAIT", 0.0)
    return tmp_path


@pytest.fixture(scope="session")
def face_files():
    """facexlib's files, with smaller networks in them: a MobileNet, and a miniature."""
    twins = {
        "detection_Resnet50_Final.pth": TorchRetinaFace(RetinaFaceConfig.mobilenet()),
        "parsing_parsenet.pth": TorchParseNet(ParseNetConfig.miniature()),
    }
    contents = {}
    for name, twin in twins.items():
        torch.save(randomize(twin).state_dict(), buffer := io.BytesIO())
        contents[name] = buffer.getvalue()
    return contents


@pytest.fixture
def server(places, files, face_files, monkeypatch):
    """The hub and the release; the hub's repositories hold files that nobody needs, as the real ones do."""
    monkeypatch.setattr(optional, "ParseNetConfig", ParseNetConfig.miniature)
    with file_server() as served:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", served.url)
        monkeypatch.setattr(released, "FACEXLIB", f"{served.url}/facexlib")
        template = f"{served.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        served.add_repository(LCM, {**contents(files / "lcm"), "README.md": b"", "text_encoder/model.safetensors": b""})
        served.add_repository(CLIP, {**contents(files / "clip"), "pytorch_model.bin": b""}, license=None)
        served.files |= {f"/v0/{name}": data for name, data in face_files.items()}
        for ending in RELEASED.values():
            for network, name in (("visual_encoder", VISUAL), ("spatial_encoder", SPATIAL)):
                served.files[f"/v0/{network}_{ending}.pth"] = (files / name).read_bytes()
        yield served
