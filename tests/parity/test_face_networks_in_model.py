"""RetinaFace and ParseNet at their real sizes: facexlib's files into the model folder, and back into PyTorch."""

import json
import shutil

import numpy as np
import pytest
import torch
from flax import nnx

from interlcm_jax.cli.main import main
from interlcm_jax.convert.checkpoints import read_weights
from interlcm_jax.convert.parsenet import TABLE as PARSENET
from interlcm_jax.convert.retinaface import table
from interlcm_jax.convert.rules import to_jax
from interlcm_jax.errors import WeightsError
from interlcm_jax.faces.parsenet import ParseNet, ParseNetConfig, load_parsenet
from interlcm_jax.faces.retinaface import RetinaFace, RetinaFaceConfig
from interlcm_jax.faces.retinaface_detector import load_retinaface
from interlcm_jax.models.weights import weight_specs
from tests.parity.bridge import randomize
from tests.parity.parsenet_twin import TorchParseNet
from tests.parity.release_files import convert
from tests.parity.retinaface_twin import TorchRetinaFace

RETINAFACE = table(RetinaFaceConfig())
NETWORKS = {
    "retinaface": (
        TorchRetinaFace,
        RetinaFace,
        RetinaFaceConfig,
        table(RetinaFaceConfig()),
        "detection_Resnet50_Final.pth",
    ),
    "parsenet": (TorchParseNet, ParseNet, ParseNetConfig, PARSENET, "parsing_parsenet.pth"),
}
each = pytest.mark.parametrize("name", NETWORKS)


@pytest.fixture(scope="module")
def with_faces(files, tmp_path_factory):
    """A model folder with both, the PyTorch modules, and what export makes of the folder."""
    folder = tmp_path_factory.mktemp("faces")
    theirs = {}
    for name, (twin, _, config, _, file) in NETWORKS.items():
        theirs[name] = randomize(twin(config()))
        for key, counter in theirs[name].state_dict().items():
            if key.endswith("num_batches_tracked"):
                counter.fill_(7)
        torch.save(theirs[name].state_dict(), folder / file)
    sources = {name: folder / file for name, (*_, file) in NETWORKS.items()}
    assert convert(files, folder / "model", **sources) == 0
    assert main(["export", str(folder / "model"), "-o", str(folder / "out")]) == 0
    return folder, theirs


@each
def test_export_loads_strictly(with_faces, name):
    folder, theirs = with_faces
    twin, _, config, _, file = NETWORKS[name]
    with torch.device("meta"):
        loaded = twin(config())
    state = torch.load(folder / "out" / file, weights_only=True)
    loaded.to_empty(device="cpu").load_state_dict(state, strict=True)
    for key, tensor in theirs[name].state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(loaded.state_dict()[key], tensor), key


def test_the_files_are_named(with_faces, capsys):
    folder, _ = with_faces
    assert main(["export", str(folder / "model"), "-o", str(folder / "again")]) == 0
    printed = capsys.readouterr().out
    assert all(file in printed for *_, file in NETWORKS.values())


def test_the_folder_loads(with_faces):
    folder, _ = with_faces
    assert load_retinaface(folder / "model", min_score=1.0)(np.zeros((9, 9, 3), np.uint8)) == []
    assert load_parsenet(folder / "model").size == 512
    weights = json.loads((folder / "model" / "config.json").read_text())["weights"]
    assert weights["retinaface"]["origin"] == "detection_Resnet50_Final.pth"


def test_a_folder_without_them(converted, tmp_path):
    assert load_retinaface(converted) is load_parsenet(converted) is None
    assert main(["export", str(converted), "-o", str(tmp_path / "out")]) == 0
    assert not any((tmp_path / "out" / file).exists() for *_, file in NETWORKS.values())


def test_adding_them_to_a_folder(with_faces, files, tmp_path, capsys):
    """The folder then is the one that `convert` makes with them."""
    folder, _ = with_faces
    model = tmp_path / "model"
    assert convert(files, model) == 0
    assert main(["add", str(model)]) == 2
    assert main(["add", str(tmp_path), "--parsenet", str(folder / "parsing_parsenet.pth")]) == 2
    assert main(["add", str(model), "--retinaface", str(folder / "parsing_parsenet.pth")]) == 2
    assert "this looks like ParseNet; wanted is RetinaFace" in capsys.readouterr().err
    assert not (model / "retinaface.safetensors").exists()
    options = [part for name, (*_, file) in NETWORKS.items() for part in (f"--{name}", str(folder / file))]
    assert main(["add", str(model), *options]) == 0
    assert {path.name for path in model.iterdir()} == {path.name for path in (folder / "model").iterdir()}
    for path in model.iterdir():
        assert path.read_bytes() == (folder / "model" / path.name).read_bytes(), path.name


@pytest.fixture
def mobilenet(tmp_path):
    """The network and its file, from a wrapper that puts `module.` before its keys."""
    theirs = randomize(TorchRetinaFace(RetinaFaceConfig.mobilenet()))
    path = tmp_path / "mobilenet0.25_Final.pth"
    torch.save({f"module.{key}": tensor for key, tensor in theirs.state_dict().items()}, path)
    return theirs, path


def test_a_file_says_by_its_keys_what_it_is(with_faces, mobilenet, tmp_path):
    """A MobileNet takes the ResNet's place; another file adds ParseNet beside it."""
    (folder, _), (theirs, path) = with_faces, mobilenet
    model = shutil.copytree(folder / "model", tmp_path / "model")
    (model / "parsenet.safetensors").unlink()
    assert main(["add", str(model), str(path), str(folder / "parsing_parsenet.pth")]) == 0
    assert (model / "parsenet.safetensors").is_file()
    assert main(["export", str(model), "-o", str(tmp_path / "out")]) == 0
    assert not (tmp_path / "out" / "detection_Resnet50_Final.pth").exists()
    state = torch.load(tmp_path / "out" / path.name, weights_only=True)
    TorchRetinaFace(RetinaFaceConfig.mobilenet()).load_state_dict(state, strict=True)
    assert all(
        torch.equal(state[key], tensor) for key, tensor in theirs.state_dict().items() if "num_batches" not in key
    )
    detector = load_retinaface(model, min_score=1.0)
    assert detector(np.zeros((9, 9, 3), np.uint8)) == []
    assert hasattr(nnx.merge(detector.graph, detector.weights).body, "stage3")


def test_a_file_goes_into_the_default_model_where_none_is_named(converted, mobilenet, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("INTERLCM_MODELS", str(tmp_path / "models"))
    assert main(["add", str(mobilenet[1])]) == 2
    assert "the small model of the package stays as it is" in capsys.readouterr().err
    model = shutil.copytree(converted, tmp_path / "models" / "restoration_3step")
    assert main(["add", str(mobilenet[1])]) == 0
    assert (model / "retinaface.safetensors").is_file()
    assert main(["add", str(model), str(mobilenet[1]), "--retinaface", str(mobilenet[1])]) == 2
    assert "two files of retinaface given" in capsys.readouterr().err
    torch.save({"lin0.model.1.weight": torch.ones(1)}, tmp_path / "other.pth")
    assert main(["add", str(model), str(tmp_path / "other.pth")]) == 2
    assert "this looks like the heads of LPIPS; wanted is RetinaFace or ParseNet" in capsys.readouterr().err


def test_files_that_are_swapped(with_faces, files, tmp_path, capsys):
    folder, _ = with_faces
    swapped = {"retinaface": folder / "parsing_parsenet.pth", "parsenet": folder / "parsing_parsenet.pth"}
    assert convert(files, tmp_path / "model", **swapped) == 2
    assert "parsing_parsenet.pth: this looks like ParseNet; wanted is RetinaFace" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_weights_that_are_not_finite(with_faces, files, tmp_path, capsys):
    folder, _ = with_faces
    state = torch.load(folder / "parsing_parsenet.pth", weights_only=True)
    state["body.3.conv2.norm.norm.running_var"][2] = torch.nan
    torch.save(state, tmp_path / "parsenet.pth")
    assert convert(files, tmp_path / "model", parsenet=tmp_path / "parsenet.pth") == 2
    assert "1 weights with NaN or infinity: body.3.conv2.norm.var" in capsys.readouterr().err


@pytest.fixture
def state(request, tmp_path):
    """A miniature's state dict, how it is read, and where it goes."""
    twin, network, config, table, _ = NETWORKS[request.param]

    def read(state):
        torch.save(state, tmp_path / "a.pth")
        path = tmp_path / "a.pth"
        return to_jax(read_weights(path), weight_specs(network, config.miniature()), table, path)

    return randomize(twin(config.miniature())).state_dict(), read


each_state = pytest.mark.parametrize("state", NETWORKS, indirect=True)


@each_state
def test_prefixes_of_data_parallelism(state):
    tensors, read = state
    plain = {path: tensor.read() for path, tensor in read(tensors).items()}
    prefixed = read({f"module.{key}": tensor for key, tensor in tensors.items()})
    for path, tensor in prefixed.items():
        np.testing.assert_array_equal(tensor.read(), plain[path])
        assert tensor.dtype == np.float32


@each_state
def test_every_offending_key_is_named(state):
    tensors, read = state
    changed = dict(tensors)
    lost = [key for key in changed if key.endswith("running_mean")][:2]
    for key in lost:
        del changed[key]
    changed |= {"fc.weight": torch.ones(2, 2), "extra.running_var": torch.ones(2)}
    odd = next(key for key in changed if key.endswith("conv2d.weight") or key.endswith("conv1x1.weight"))
    changed[odd] = torch.ones(3, 3)
    with pytest.raises(WeightsError) as error:
        read(changed)
    text = str(error.value)
    assert f"2 missing keys: {', '.join(sorted(lost))}" in text
    assert "2 unexpected keys: extra.running_var, fc.weight" in text
    assert f"1 mis-shaped keys: {odd}" in text
