"""Export, then convert: the same model, in every byte of its weights and every field of its configuration."""

import dataclasses
import importlib
import json
import shutil
import sys

import numpy as np
import pytest

from interlcm_jax.cli.main import main
from interlcm_jax.convert.model import abstract_weights, export
from interlcm_jax.default_model import SMALL
from interlcm_jax.files.safetensors import from_array, open_safetensors, write_safetensors
from interlcm_jax.model_folder import NETWORKS, ModelConfig, read_config, weights_file, write_config
from tests.parity.release_files import SPATIAL, VISUAL, convert

BASE = ModelConfig.miniature()
# Another value for each field that no network's weights tell.
CHANGED = dataclasses.replace(
    BASE,
    vae=dataclasses.replace(BASE.vae, scaling_factor=0.5, decoder_block_out_channels=(4, 8, 16, 20)),
    visual_encoder=dataclasses.replace(BASE.visual_encoder, norm_num_groups=8, norm_eps=1e-4),
    schedule=dataclasses.replace(
        BASE.schedule,
        num_train_timesteps=500,
        beta_start=0.001,
        beta_end=0.02,
        original_inference_steps=25,
        timestep_scaling=5.0,
    ),
    num_network_calls=2,
    skipped_steps=7,
    task="inpainting",
    color_fix="adain",
    guidance_scale=2.0,
    image_size=128,
    leave_sharp=0.25,
    weights={"unet": {"origin": "a test", "license": "none"}, "visual_encoder": {"origin": "here", "license": "free"}},
)


def write_model(folder, config):
    """A model folder of zeros."""
    folder.mkdir()
    write_config(folder, config)
    for name in NETWORKS:
        specs = abstract_weights(config, name)
        zeros = {key: from_array(np.zeros(spec.shape, np.float32), folder) for key, spec in specs.items()}
        write_safetensors(weights_file(folder, name), zeros)
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """What the command makes of the changed model."""
    folder = tmp_path_factory.mktemp("round_trip")
    assert main(["export", str(write_model(folder / "model", CHANGED)), "-o", str(folder / "out")]) == 0
    return folder / "out"


def back(exported, out, *options):
    named = {"lcm": "lcm", "clip": "clip", "visual-encoder": VISUAL, "spatial-encoder": SPATIAL}
    arguments = [str(part) for name, file in named.items() for part in (f"--{name}", exported / file)]
    assert main(["convert", *arguments, "-o", str(out), *options]) == 0
    return read_config(out)


def test_every_field_comes_back(exported, tmp_path, capsys):
    for field in dataclasses.fields(ModelConfig):
        if field.name not in ("unet", "clip_vision", "spatial_encoder"):
            assert getattr(CHANGED, field.name) != getattr(BASE, field.name), f"{field.name} isn't tested"
    assert back(exported, tmp_path / "again") == CHANGED
    assert "interlcm.json: its settings are taken" in capsys.readouterr().err


def test_options_come_before_the_settings(exported, tmp_path):
    config = back(exported, tmp_path / "again", "--task", "colorization", "--license", "mine", "--image-size", "64")
    trained = {"origin": "here", "license": "mine"}
    weights = {**CHANGED.weights, "visual_encoder": trained, "spatial_encoder": {"license": "mine"}}
    changes = {"task": "colorization", "color_fix": "none", "image_size": 64, "weights": weights}
    assert config == dataclasses.replace(CHANGED, **changes)


def test_files_from_elsewhere_have_an_origin_of_their_own(exported, converted, files, tmp_path):
    """Just the trained encoders are the exported ones here."""
    sources = {"visual_encoder": exported / VISUAL, "spatial_encoder": exported / SPATIAL}
    assert convert(files, tmp_path / "model", **sources) == 0
    config = read_config(tmp_path / "model")
    assert (config.skipped_steps, config.vae) == (CHANGED.skipped_steps, read_config(converted).vae)
    assert config.weights["visual_encoder"] == CHANGED.weights["visual_encoder"]
    assert config.weights["unet"]["origin"] == "lcm/unet"


def test_settings_that_are_damaged_are_refused(exported, tmp_path, capsys):
    for name in (VISUAL, SPATIAL):
        shutil.copy(exported / name, tmp_path)
    (tmp_path / "interlcm.json").write_text(json.dumps({"format": 99}))
    arguments = ["--lcm", exported / "lcm", "--clip", exported / "clip", "-o", tmp_path / "model"]
    arguments += ["--visual-encoder", tmp_path / VISUAL, "--spatial-encoder", tmp_path / SPATIAL]
    assert main(["convert", *map(str, arguments)]) == 2
    assert "interlcm.json: format is 99" in capsys.readouterr().err


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """What export makes of the bundled model."""
    out = tmp_path_factory.mktemp("small") / "out"
    export(SMALL, out)
    return out


def test_the_bundled_model_comes_back(small, tmp_path):
    assert back(small, tmp_path / "again") == read_config(SMALL)
    for name in NETWORKS:
        assert weights_file(tmp_path / "again", name).read_bytes() == weights_file(SMALL, name).read_bytes(), name


def test_diffusers_loads_the_bundled_models_autoencoder(small, monkeypatch):
    """Strictly; that it then decodes as ours does is `test_a_decoder_of_its_own_widths` of `test_vae`."""
    monkeypatch.syspath_prepend(str(small))
    vae = importlib.import_module("load_vae").load_vae()
    monkeypatch.delitem(sys.modules, "load_vae")
    assert vae.decoder.conv_in.out_channels == 192
    stored = open_safetensors(small / "lcm" / "vae" / "diffusion_pytorch_model.safetensors")
    assert stored.keys() == vae.state_dict().keys()
    for key, tensor in vae.state_dict().items():
        np.testing.assert_array_equal(stored[key].read(), tensor.numpy())
