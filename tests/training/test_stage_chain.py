"""From nothing to a model that restores: every stage by `train.py`, each from the model folder of the one before."""

import json

import numpy as np
import pytest
from PIL import Image

import train
from interlcm_jax import InterLCM
from interlcm_jax.cli.main import main
from interlcm_jax.model_folder import read_config
from tests.data.faces import write_faces

pytestmark = pytest.mark.long

CONFIG = """
from interlcm_jax.data.loader import DataConfig
from interlcm_jax.models.discriminator import DiscriminatorConfig
from interlcm_jax.training.config import *
config = TrainConfig(
    start=StartConfig(random="miniature"),
    data=DataConfig(path={faces!r}, image_size=64, prefetch=0),
    losses=LossConfig(lpips=0.0, onet=0.1, adversarial_from=1),
    discriminator=DiscriminatorConfig.miniature(),
    validation=ValidationConfig(path={pairs!r}, every=2, count=2, grid=2),
    steps=2, batch_size=8, dtype="float32", remat="none",
)
"""
STAGES = ("autoencoder", "token_tower", "prior", "distillation", "warm_up", "restoration")


def test_the_stages_in_a_row(tmp_path):
    write_faces(tmp_path / "faces", 8)
    assert main(["dataset", str(tmp_path / "faces"), "-o", str(tmp_path / "pairs"), "--size", "64", "--frozen"]) == 0
    config = tmp_path / "config.py"
    config.write_text(CONFIG.format(faces=str(tmp_path / "faces"), pairs=str(tmp_path / "pairs")))
    start, scales = [], []
    for stage in STAGES:
        run, model = tmp_path / stage, tmp_path / f"{stage}-model"
        fresh = ["--start.fresh"] if stage == "warm_up" else []
        assert train.main([str(config), "--stage", stage, "--run.folder", str(run), *start, *fresh]) == 0
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        assert any("validation/psnr" in line for line in lines)
        assert list((run / "samples").glob("*.png"))
        assert main(["export", str(run), "--model-folder", "-o", str(model), "--raw"]) == 0
        scales.append(read_config(model).vae.scaling_factor)
        start = ["--start.model", str(model)]
    # The prior measures how wide the latents are; all that follow keep to it.
    assert scales[:2] == [0.18215] * 2
    assert scales[2] != 0.18215
    assert scales[3:] == [scales[2]] * 3
    made = InterLCM.from_pretrained(tmp_path / "restoration-model")
    face = np.asarray(Image.open(next((tmp_path / "faces").iterdir())))
    assert made.restore(face[None]).shape == (1, 64, 64, 3)
    origins = {name: made.config.weights[name]["origin"].split(",")[0] for name in made.config.weights}
    assert origins == {
        "vae": "autoencoder",
        "clip_vision": "token_tower",
        "unet": "distillation",
        "visual_encoder": "restoration",
        "spatial_encoder": "restoration",
    }
