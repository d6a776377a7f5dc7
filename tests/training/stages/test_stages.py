"""What every stage does: train its own networks by `train.py`'s step, learn, and show pictures."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest

import train
from interlcm_jax.data.loader import DataConfig
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.pipeline import InterLCM
from interlcm_jax.training.config import MeshConfig, OptimizerConfig, StartConfig, TrainConfig
from interlcm_jax.training.losses import LossConfig
from interlcm_jax.training.sharding import make_mesh, put_batch
from interlcm_jax.training.stages import Autoencoder, Distillation, ImageEncoder, Prior, Restoration, WarmUp
from interlcm_jax.training.start import initial_weights, load_start
from interlcm_jax.training.state import split_weights

MODEL = ModelConfig.miniature()
LOSSES = LossConfig(lpips=0.0, adversarial=0.0)
STAGES = {
    "autoencoder": Autoencoder(losses=LOSSES),
    "image_encoder": ImageEncoder(),
    "prior": Prior(draws=4),
    "distillation": Distillation(draws=8),
    "warm_up": WarmUp(),
    "restoration": Restoration(losses=LOSSES),
}
TRAINED = {
    "autoencoder": {"vae"},
    "image_encoder": {"clip_vision", "head"},
    "prior": {"unet"},
    "distillation": {"unet"},
    "warm_up": {"visual_encoder", "spatial_encoder"},
}
# Learning rates, and what is left of the loss, at most, after so many steps on two pictures. The restoration's steps
# are compared with PyTorch's.
LEARNS = {
    "autoencoder": (3e-3, 0.6),
    "image_encoder": (1e-3, 0.6),
    "prior": (1e-3, 0.7),
    "distillation": (1e-3, 0.9),
    "warm_up": (3e-3, 0.9),
}
STEPS = 40


def config_of(stage, **start) -> TrainConfig:
    return TrainConfig(
        stage=STAGES[stage],
        start=StartConfig(**start),
        data=DataConfig(image_size=64),
        optimizer=OptimizerConfig(learning_rate=LEARNS[stage][0], final_learning_rate=1e-5, decay_steps=STEPS, ema=0.9),
        dtype="float32",
        remat=False,
        batch_size=2,
    )


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, mesh):
    """A model as a run begins with it."""
    config = dataclasses.replace(config_of("autoencoder", random="miniature"), stage=STAGES["restoration"])
    start = load_start(config, mesh)
    initial_weights(config, start, mesh)
    InterLCM(start.model, start.networks).save_pretrained(folder := tmp_path_factory.mktemp("stages") / "model")
    return str(folder)


@pytest.mark.parametrize("stage", list(LEARNS))
def test_a_stage_trains_its_networks_and_learns(stage, batch, folder, mesh):
    """By the loss of the first step's draws, before and after steps that each have their own."""
    config = config_of(stage, model=folder)
    start = load_start(config, mesh)
    state = train.new_state(config, start, mesh)
    begin, frozen = jax.device_get(state.params), split_weights(start.networks, config.stage.trained)[1]
    assert {path.split(".")[0] for path in begin} == TRAINED[stage]
    program, told = train.compile_step(config, start, state, mesh), []
    for step in (*range(STEPS), 0):
        state = dataclasses.replace(state, step=jnp.int32(step))
        state, metrics = program(state, frozen, start.judges, put_batch(batch, mesh))
        told.append(float(metrics["loss"]))
    assert told[-1] < LEARNS[stage][1] * told[0], told
    still = {path for path in begin if (state.params[path] == begin[path]).all()}
    # Nothing depends on the guidance embedding before the distillation.
    assert still == ({"unet.time_embedding.cond_proj.kernel"} if stage == "prior" else set())


@pytest.mark.parametrize("stage", list(STAGES))
def test_a_stage_shows_pictures(stage, images, networks_of):
    networks = networks_of(type(STAGES[stage]))
    shown = jax.jit(functools.partial(STAGES[stage].show, networks, MODEL))(images["lq"], images["hq"])
    assert shown.shape == images["hq"].shape
    assert jnp.isfinite(shown).all()
    assert (shown[0] != shown[1]).any()
