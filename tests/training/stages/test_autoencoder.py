"""The autoencoder's own options."""

import dataclasses

import jax
import numpy as np

from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.training.config import OptimizerConfig, TrainConfig
from interlcm_jax.training.losses import Judges, LossConfig
from interlcm_jax.training.stages import Autoencoder
from interlcm_jax.training.state import initial_state, split_weights
from interlcm_jax.training.step import make_step

MODEL = ModelConfig.miniature()


def test_the_decoder_trains_alone(batch, networks_of):
    """The encoder's weights and their average stay to the bit."""
    stage = Autoencoder(losses=LossConfig(lpips=0.0, adversarial=0.0), decoder_only=True)
    config = TrainConfig(stage=stage, optimizer=OptimizerConfig(ema=0.9), dtype="float32", remat=False)
    networks = networks_of(Autoencoder)
    params, frozen = split_weights(networks, stage.trained)
    state = initial_state(params, None, config.optimizer)
    step = jax.jit(make_step(config, MODEL, networks, None))
    for _ in range(3):
        state, _ = step(state, frozen, Judges(), batch)
    encoder = {path for path in params if path.startswith(("vae.encoder", "vae.quant_conv"))}
    for path in encoder:
        np.testing.assert_array_equal(state.params[path], params[path], err_msg=path)
        np.testing.assert_array_equal(state.ema[path], params[path], err_msg=path)
    moved = {path for path in params if (state.ema[path] != params[path]).any()}
    assert len(moved) > 0.8 * len(params.keys() - encoder)


def test_the_divergence_counts_by_its_weight(images, networks_of, key):
    networks = networks_of(Autoencoder)
    drawn = images | Autoencoder().draw(key(), MODEL, images["hq"].shape)

    def beside(divergence):
        return dataclasses.replace(Autoencoder(), divergence=divergence).generate(networks, MODEL, drawn).beside

    assert float(beside(2.0)) == 2 * float(beside(1.0)) > 0 == float(beside(0.0))
