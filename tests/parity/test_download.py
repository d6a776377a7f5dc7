"""`interlcm download` of miniature weights in the published formats, from a server on this machine."""

import json
import os
import shutil
import subprocess
import sys

import huggingface_hub
import pytest
import torch

from interlcm_jax.cli.main import main
from interlcm_jax.convert.released import CLIP, FACES_LICENSE, LCM
from interlcm_jax.default_model import default_model, describe_model
from interlcm_jax.faces.load import load_detector
from interlcm_jax.faces.retinaface_detector import RetinaFaceDetector
from interlcm_jax.files import fetch
from interlcm_jax.model_folder import NETWORKS, read_config
from tests.file_server import file_server
from tests.parity.release_files import UNET as UNET_FILE
from tests.parity.release_files import VISUAL, download, load

UNET = f"/cdn/{LCM}/{UNET_FILE.removeprefix('lcm/')}"


FACES = {"/v0/detection_Resnet50_Final.pth", "/v0/parsing_parsenet.pth"}


def asked(server):
    return {path for path, _, _ in server.log if path.startswith(("/cdn", "/v0"))}


def test_the_published_files_become_the_default_model(server, places, converted, capsys):
    assert download(server) == 0
    folder = places / "INTERLCM_MODELS" / "restoration_3step"
    assert default_model() == folder
    for name in NETWORKS:
        assert (folder / f"{name}.safetensors").read_bytes() == (converted / f"{name}.safetensors").read_bytes(), name
    config = read_config(folder)
    assert (config.task, config.num_network_calls, config.image_size) == ("restoration", 3, 512)
    license = "non-commercial use only, see github.com/sen-mao/InterLCM"
    assert config.weights == {
        "unet": {"origin": f"{LCM}/unet", "license": "mit"},
        "vae": {"origin": f"{LCM}/vae", "license": "mit"},
        "clip_vision": {"origin": CLIP, "license": f"see huggingface.co/{CLIP}"},
        "visual_encoder": {"origin": "sen-mao/InterLCM v0.1.0, visual_encoder_3step.pth", "license": license},
        "spatial_encoder": {"origin": "sen-mao/InterLCM v0.1.0, spatial_encoder_3step.pth", "license": license},
        "retinaface": {"origin": "xinntao/facexlib v0.1.0/detection_Resnet50_Final.pth", "license": FACES_LICENSE},
        "parsenet": {"origin": "xinntao/facexlib v0.2.2/parsing_parsenet.pth", "license": FACES_LICENSE},
    }
    assert isinstance(load_detector(folder), RetinaFaceDetector)
    assert (folder / "parsenet.safetensors").is_file()
    assert f"{license} (spatial_encoder, visual_encoder)" in describe_model(folder, config)
    output = capsys.readouterr()
    assert f"{folder}: now the default model" in output.out
    assert license in output.err
    assert "Apache-2.0" in output.err
    # What isn't needed isn't fetched.
    assert not [path for path in asked(server) if path.endswith((".bin", ".md")) or "text_encoder" in path]
    # A second time, nothing is.
    server.log.clear()
    assert download(server) == 0
    assert server.log == []


def test_other_models_share_the_files(server, places):
    assert download(server, "--num-network-calls", 1) == 0
    server.log.clear()
    assert download(server, "--task", "colorization", "-o", places / "colors") == 0
    assert asked(server) == {f"/v0/{name}_colorization_1step.pth" for name in ("visual_encoder", "spatial_encoder")}
    config = read_config(places / "colors")
    assert (config.task, config.num_network_calls, config.color_fix) == ("colorization", 1, "none")
    # Named with --out, it is no default.
    assert default_model() == places / "INTERLCM_MODELS" / "restoration_1step"
    assert download(server, "--task", "colorization", "-o", places / "colors") == 2


@pytest.mark.parametrize("path", [UNET, "/v0/spatial_encoder_3step.pth"])
def test_an_interrupted_download_goes_on(server, places, converted, monkeypatch, capsys, path):
    half = len(server.files[path]) // 2
    server.cuts[path] = [half]
    with monkeypatch.context() as context:
        context.setattr(fetch, "RETRIES", 0)
        assert download(server) == 2
    assert "the connection failed" in capsys.readouterr().err
    assert not (places / "INTERLCM_MODELS").exists()
    before = asked(server)
    server.log.clear()
    assert download(server) == 0
    assert server.asked(path) == [0, half]
    assert asked(server) & before == {path}
    for name in NETWORKS:
        file = f"{name}.safetensors"
        assert (default_model() / file).read_bytes() == (converted / file).read_bytes()


def test_a_file_that_changed_meanwhile(server, monkeypatch):
    server.cuts[UNET] = [100]
    old = server.files[UNET]
    with monkeypatch.context() as context:
        context.setattr(fetch, "RETRIES", 0)
        # Another version of the same size, in which the first bytes differ.
        server.files[UNET] = old[::-1]
        assert download(server) == 2
    server.files[UNET] = old
    assert download(server) == 0
    assert server.asked(UNET) == [0, 0]


def test_files_in_the_hubs_cache_are_not_fetched(server, places, files):
    for name, folder in ((LCM, "lcm"), (CLIP, "clip")):
        repository = places / "hub" / f"models--{name.replace('/', '--')}"
        (repository / "snapshots").mkdir(parents=True)
        (repository / "snapshots" / ("0" * 40)).symlink_to(files / folder)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("0" * 40)
    assert download(server) == 0
    trained = {f"/v0/{name}_3step.pth" for name in ("visual_encoder", "spatial_encoder")}
    assert {path for path, _, _ in server.log} == trained | FACES
    assert read_config(default_model()).weights["unet"]["origin"] == f"{LCM}/unet"


def test_the_default_model_is_exported(server, places, files, capsys):
    assert download(server) == 0
    assert main(["export", "-o", str(places / "out")]) == 0
    assert "model: restoration_3step (" in capsys.readouterr().err
    exported, published = load(places / "out" / VISUAL), load(files / VISUAL)
    assert exported.keys() == published.keys()
    assert all(torch.equal(exported[key], published[key]) for key in published)


def test_a_page_in_place_of_weights(server, places, capsys):
    server.files["/v0/visual_encoder_3step.pth"] = b"<html>Log in to this network</html>"
    assert download(server) == 2
    error = capsys.readouterr().err
    assert "visual_encoder_3step.pth: not a PyTorch file" in error
    assert f"Delete {places / 'INTERLCM_CACHE' / 'downloads'} and give the same command again" in error
    assert not (places / "INTERLCM_MODELS" / "restoration_3step").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "sharpen"], "task 'sharpen' doesn't exist; choose one of colorization, inpainting, restoration"),
        (["--num-network-calls", "2"], "restoration is released with 3 or 1 network calls, not 2"),
        (["--task", "inpainting", "--num-network-calls", "3"], "inpainting is released with 1 network calls, not 3"),
        (["--release", "file:///weights"], "file:///weights: an address begins with https:// or http://"),
    ],
)
def test_requests_that_cannot_be_carried_out(server, capsys, options, message):
    assert download(server, *options) == 2
    assert message in capsys.readouterr().err
    assert server.log == []


def test_a_disk_without_space_for_the_model(server, places, monkeypatch, capsys):
    usage = shutil.disk_usage("/")
    downloads = places / "INTERLCM_CACHE"
    monkeypatch.setattr(
        shutil, "disk_usage", lambda folder: usage._replace(free=10**9 if downloads in folder.parents else 0)
    )
    assert download(server) == 2
    assert "the disk is too full: 0.00 GB are needed, 0.00 are free" in capsys.readouterr().err
    assert list((places / "INTERLCM_MODELS").iterdir()) == []


def test_a_release_that_is_not_there(server, capsys):
    del server.files["/v0/spatial_encoder_3step.pth"]
    assert download(server) == 2
    error = capsys.readouterr().err
    assert f"{server.url}/v0/spatial_encoder_3step.pth: 404 Not Found; it may have been moved or withdrawn" in error


def test_a_repository_that_is_not_there_or_lacks_a_file(server, capsys):
    listing = json.loads(server.files[f"/api/models/{LCM}"])
    listing["siblings"] = [file for file in listing["siblings"] if not file["rfilename"].startswith("vae/")]
    server.files[f"/api/models/{LCM}"] = json.dumps(listing).encode()
    assert download(server) == 2
    assert f"{LCM}: 1 missing files: vae/config.json" in capsys.readouterr().err
    del server.files[f"/api/models/{LCM}"]
    assert download(server) == 2
    assert f"{LCM}: " in capsys.readouterr().err
    assert asked(server) == set()


def test_without_pytorch_nothing_is_downloaded(server, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert download(server) == 2
    assert "pip install 'interlcm-jax[parity]'" in capsys.readouterr().err
    assert server.log == []


def test_no_connection(server, monkeypatch, capsys):
    with file_server() as gone:
        pass
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", gone.url)
    assert download(server) == 2
    assert f"{LCM}: the download failed" in capsys.readouterr().err
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert download(server) == 2
    assert f"{LCM}: HF_HUB_OFFLINE forbids to download it" in capsys.readouterr().err


def test_one_download_at_a_time(server, places, capsys):
    program = (
        "import sys, filelock\n"
        "with filelock.FileLock(sys.argv[1]):\n"
        "    print('locked', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    lock = places / "INTERLCM_CACHE" / "downloads" / ".lock"
    lock.parent.mkdir(parents=True)
    command = [sys.executable, "-c", program, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        assert download(server) == 2
        other.stdin.close()
    assert "another download is under way" in capsys.readouterr().err
    assert server.log == []


def test_the_environment_names_another_hub(server):
    program = f"from interlcm_jax.files.repository import list_repository; print(*list_repository({CLIP!r}).files)"
    environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HUB_OFFLINE": "0"}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "model.safetensors" in run.stdout.split()
