"""`train.py` on a file of several stages: from nothing to a model that restores, stopped and gone on with."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import train
from interlcm_jax import InterLCM
from interlcm_jax.cli.main import main
from interlcm_jax.model_folder import read_config
from tests.data.faces import write_faces

CONFIG = """
from interlcm_jax.data.loader import DataConfig
from interlcm_jax.models.discriminator import DiscriminatorConfig
from interlcm_jax.training.config import *
from interlcm_jax.training.losses import LossConfig
from interlcm_jax.training.stages import *

losses = LossConfig(lpips=0.0, onet=0.1, adversarial_from=1, discriminator=DiscriminatorConfig.miniature())
kinds = {{
    "autoencoder": Autoencoder(losses=losses),
    "image_encoder": ImageEncoder(),
    "prior": Prior(draws=2),
    "distillation": Distillation(),
    "warm_up": WarmUp(),
    "3step": Restoration(losses=losses),
    "1step": Restoration(losses=LossConfig(lpips=0.0, adversarial=0.0)),
}}
stages, start = {{}}, StartConfig(random="miniature")
for name, kind in kinds.items():
    if name == "warm_up":
        start = StartConfig(model=start.model, fresh=True)
    if name == "1step":
        start = StartConfig(model=start.model, num_network_calls=1)
    stages[name] = TrainConfig(
        stage=kind,
        start=start,
        data=DataConfig(path={faces!r}, image_size=64, prefetch=0),
        validation=ValidationConfig(path={pairs!r}, every=2, count=2, grid=2),
        run=RunConfig(folder=f"runs/{{name}}", checkpoint_every=1),
        steps=2, batch_size=8, dtype="float32", remat=False,
    )
    start = StartConfig(model=f"runs/{{name}}/model")
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """The file, in a folder of its own with faces and held-out pairs."""
    write_faces(tmp_path / "faces", 8)
    assert main(["dataset", str(tmp_path / "faces"), "-o", str(tmp_path / "pairs"), "--size", "64", "--frozen"]) == 0
    (tmp_path / "recipe.py").write_text(CONFIG.format(faces=str(tmp_path / "faces"), pairs=str(tmp_path / "pairs")))
    monkeypatch.chdir(tmp_path)
    return "recipe.py"


def steps(stage: str, name: str) -> list[int]:
    """Those whose line in the log has this number."""
    lines = [json.loads(line) for line in Path("runs", stage, "log.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if name in line]


@pytest.mark.long
def test_a_stopped_recipe_goes_on_and_finished_stages_are_passed_over(recipe, monkeypatch, capsys):
    """Stopped in the middle of the second stage."""
    options = ["--run.log-every", "1"]
    asked = []
    requested = train.Interrupt.requested

    def stop_at_the_third_step(interrupt):
        asked.append(1)
        if len(asked) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return requested(interrupt)

    monkeypatch.setattr(train.Interrupt, "requested", stop_at_the_third_step)
    assert train.main([recipe, *options]) == 0
    assert sorted(path.name for path in Path("runs").iterdir()) == ["autoencoder", "image_encoder"]
    assert not Path("runs/image_encoder/model").exists()
    assert "stopped; the same command goes on at step 1" in capsys.readouterr().err
    written = Path("runs/autoencoder/model/vae.safetensors").stat().st_mtime_ns

    assert train.main([recipe, *options, "--only", "image_encoder"]) == 0
    assert steps("image_encoder", "loss") == [1, 2]
    # Every second step is validated, and every checkpoint.
    assert steps("autoencoder", "validation/psnr") == [1, 2]
    assert not Path("runs/prior").exists()
    assert train.main([recipe, *options, "--only", "autoencoder"]) == 0
    assert "autoencoder: done, in runs/autoencoder/model" in capsys.readouterr().err
    assert Path("runs/autoencoder/model/vae.safetensors").stat().st_mtime_ns == written


@pytest.mark.long
def test_all_stages_in_a_row(recipe):
    assert train.main([recipe]) == 0
    stages = ("autoencoder", "image_encoder", "prior", "distillation", "warm_up", "3step", "1step")
    for stage in stages:
        assert "validation/psnr" in Path("runs", stage, "log.jsonl").read_text()
        assert list(Path("runs", stage, "samples").glob("*.png"))
    # The prior measures how wide the latents are; all that follow keep to it.
    scales = [read_config(Path("runs", stage, "model")).vae.scaling_factor for stage in stages]
    assert scales[:2] == [0.18215] * 2
    assert scales[2] != 0.18215
    assert scales[3:] == [scales[2]] * 4
    for stage, calls in (("3step", 3), ("1step", 1)):
        made = InterLCM.from_pretrained(Path("runs", stage, "model"))
        assert made.config.num_network_calls == calls
        face = np.asarray(Image.open(next(Path("faces").iterdir())))
        assert made.restore(face[None]).shape == (1, 64, 64, 3)
        origins = {name: made.config.weights[name]["origin"].split(",")[0] for name in made.config.weights}
        assert origins == {
            "vae": "autoencoder",
            "clip_vision": "image_encoder",
            "unet": "distillation",
            "visual_encoder": stage,
            "spatial_encoder": stage,
        }


@pytest.mark.long
def test_two_processes_train_one_stage_after_the_other(recipe):
    """One of them exports, and the other waits for it."""
    with Path(recipe).open("a") as file:
        file.write("stages = dict(list(stages.items())[:2])\n")
    with socket.create_server(("localhost", 0)) as free:
        address = f"localhost:{free.getsockname()[1]}"
    flags = "--xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(Path(train.__file__).parent)}
    command = [sys.executable, train.__file__, recipe, "--coordinator", address, "--num-processes", "2"]
    pipes = {"stderr": subprocess.PIPE, "text": True, "env": environment}
    processes = [subprocess.Popen([*command, "--process-id", str(i)], **pipes) for i in range(2)]
    said = [process.communicate(timeout=500)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert said[0].count("exported to") == 2
    assert "exported" not in said[1]
    assert read_config(Path("runs/image_encoder/model")).weights["clip_vision"]["origin"].startswith("image_encoder")
