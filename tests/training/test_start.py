"""Where the networks' weights come from before the first step."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from interlcm_jax.cli.main import main
from interlcm_jax.data.loader import DataConfig
from interlcm_jax.errors import InterLCMError
from interlcm_jax.model_folder import read_config, write_config
from interlcm_jax.models.discriminator import DiscriminatorConfig
from interlcm_jax.training.config import MeshConfig, StartConfig, TrainConfig
from interlcm_jax.training.losses import LossConfig
from interlcm_jax.training.sharding import make_mesh
from interlcm_jax.training.stages import Distillation, Prior, Restoration
from interlcm_jax.training.start import initial_weights, load_start
from interlcm_jax.training.state import split_weights
from tests.miniature import miniature_model

OUTPUTS = (
    "spatial_encoder.controlnet_down_blocks",
    "spatial_encoder.controlnet_mid_block",
    "spatial_encoder.controlnet_cond_embedding.conv_out",
)


# No judges: what they are loaded from is tested apart.
PLAIN = Restoration(losses=LossConfig(lpips=0.0, discriminator=DiscriminatorConfig.miniature()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder, and LCM and CLIP as they are published."""
    folder = tmp_path_factory.mktemp("start")
    miniature_model().save_pretrained(folder / "model")
    return folder


@pytest.fixture(scope="module")
def published(folder):
    pytest.importorskip("torch")
    assert main(["export", str(folder / "model"), "-o", str(folder / "published")]) == 0
    return folder / "published"


def begin(dtype="float32", seed=0, stage=PLAIN, **start):
    config = TrainConfig(
        stage=stage, start=StartConfig(**start), data=DataConfig(image_size=64), dtype=dtype, seed=seed
    )
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    started = load_start(config, mesh)
    params = initial_weights(config, started, mesh)
    return started.model, params, split_weights(started.networks, stage.trained)[1]


def assert_equal(ours, reference):
    assert ours.keys() == reference.keys()
    for path, weight in reference.items():
        np.testing.assert_array_equal(ours[path], weight, err_msg=path)


def assert_new_encoders(params, unet):
    """The UNet's down path, output convolutions of zero, and the rest random."""
    own = "spatial_encoder."
    down = [path for path in params if path.startswith(own) and not path.startswith(f"{own}controlnet_")]
    assert len(down) > 50
    for path in down:
        np.testing.assert_array_equal(params[path], unet["unet." + path.removeprefix(own)], err_msg=path)
    for path, weight in params.items():
        if path.startswith(OUTPUTS):
            assert not weight.any(), path
        elif path.endswith("kernel"):
            assert weight.std() > 0, path


def test_a_model_folder_gives_all(folder):
    model, params, frozen = begin(model=str(folder / "model"), num_network_calls=1, skipped_steps=2, task="inpainting")
    trained, others = split_weights(miniature_model().networks)
    assert_equal(params, trained)
    assert_equal(frozen, others)
    assert (model.num_network_calls, model.skipped_steps, model.task) == (1, 2, "inpainting")
    assert model.color_fix == "none"


@pytest.mark.parametrize("task", ["colorization", "inpainting"])
def test_a_model_folders_own_calls_start_and_task_hold(folder, tmp_path, task):
    """Its color fix too; each can be changed by itself."""
    shutil.copytree(folder / "model", tmp_path / "model")
    own = {"num_network_calls": 1, "skipped_steps": 4, "task": task, "color_fix": "adain"}
    write_config(tmp_path / "model", dataclasses.replace(read_config(tmp_path / "model"), **own))
    model, _, _ = begin(model=str(tmp_path / "model"))
    assert {name: getattr(model, name) for name in own} == own
    model, _, _ = begin(model=str(tmp_path / "model"), skipped_steps=0, task="restoration")
    assert {name: getattr(model, name) for name in own} == own | {
        "skipped_steps": 0,
        "task": "restoration",
        "color_fix": "wavelet",
    }


def test_without_a_folder_calls_start_and_task_are_the_papers():
    model, _, _ = begin(random="miniature")
    assert (model.num_network_calls, model.skipped_steps, model.task, model.color_fix) == (
        3,
        1,
        "restoration",
        "wavelet",
    )


def test_a_teacher_is_the_folders_prior(folder):
    _, params, frozen = begin(model=str(folder / "model"), stage=Distillation())
    assert len(params) > 50
    assert_equal({path: frozen[path.replace("unet.", "teacher.", 1)] for path in params}, params)


def test_a_start_that_a_stage_cannot_have_is_named(folder, published):
    with pytest.raises(InterLCMError, match=r"Distillation goes on from a model; name its folder as start.model"):
        begin(random="miniature", stage=Distillation())
    with pytest.raises(InterLCMError, match=r"start.lcm: Prior trains unet; begin from start.model or start.random"):
        begin(lcm=str(published / "lcm"), clip=str(published / "clip"), stage=Prior())


def test_fresh_encoders(folder):
    _, params, frozen = begin(model=str(folder / "model"), fresh=True)
    assert_new_encoders(params, frozen)


def test_a_folder_without_encoders_gets_new_ones(folder, tmp_path):
    shutil.copytree(folder / "model", tmp_path / "model")
    for name in ("visual_encoder", "spatial_encoder"):
        (tmp_path / "model" / f"{name}.safetensors").unlink()
    _, params, frozen = begin(model=str(tmp_path / "model"))
    assert_new_encoders(params, frozen)


def test_published_networks(published):
    model, params, frozen = begin(lcm=str(published / "lcm"), clip=str(published / "clip"))
    assert_equal(frozen, split_weights(miniature_model().networks)[1])
    assert_new_encoders(params, frozen)
    reference = miniature_model().config
    assert (model.unet, model.vae, model.schedule) == (reference.unet, reference.vae, reference.schedule)
    assert model.visual_encoder.features == reference.clip_vision.hidden_size


def test_the_spatial_encoder_starts_as_the_unet_that_is_named(published, tmp_path):
    """SD 1.5's has no guidance embedding; here it is told from the LCM's by its numbers."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(published / "lcm" / "unet", tmp_path / "unet")
    [file] = (tmp_path / "unet").glob("*.safetensors")
    save_file({key: tensor + 1 for key, tensor in load_file(file).items()}, file)
    sources = {"lcm": str(published / "lcm"), "clip": str(published / "clip"), "sd15": str(tmp_path)}
    _, params, frozen = begin(**sources)
    assert_new_encoders(params, {path: weight + 1 for path, weight in frozen.items()})


def test_random_weights_are_of_the_seed():
    first, again, other = (begin(random="miniature", seed=seed) for seed in (0, 0, 1))
    assert_equal(again[2], first[2])
    path = "unet.conv_in.kernel"
    assert (other[2][path] != first[2][path]).any()
    assert_new_encoders(first[1], first[2])


def test_only_frozen_weights_are_held_in_the_compute_dtype(folder):
    _, params, frozen = begin(dtype="bfloat16", model=str(folder / "model"))
    assert {str(weight.dtype) for weight in params.values()} == {"float32"}
    assert {str(weight.dtype) for weight in frozen.values()} == {"bfloat16"}


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ({"model": "nowhere"}, "nowhere: not a model folder"),
        ({"lcm": "nowhere", "clip": "nowhere"}, "nowhere"),
    ],
)
def test_what_is_not_there_is_named(start, words):
    with pytest.raises(InterLCMError, match=words):
        begin(**start)
