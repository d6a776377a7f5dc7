"""The schema of a run: what no type says."""

import dataclasses

import pytest

from interlcm_jax.errors import InterLCMError
from interlcm_jax.training.config import MeshConfig, RunConfig, StartConfig, TrainConfig, ValidationConfig
from interlcm_jax.training.stages import Autoencoder, Distillation, ImageEncoder, Prior


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"batch_size": 6, "accumulate": 4}, "batch_size is 6, but must be a multiple of accumulate, 4"),
        ({"start": StartConfig()}, "of start.model, start.random and start.lcm none is given"),
        ({"start": StartConfig(lcm="a/b")}, "start.clip must be"),
        ({"seed": -1}, "seed is -1"),
        ({"validation": ValidationConfig(count=0)}, "validation.count is 0, but must be at least 1"),
        ({"run": RunConfig(keep=0), "mesh": MeshConfig(data=-1)}, "mesh.data is -1, .*; run.keep is 0, but must be at"),
    ],
)
def test_a_configuration_that_does_not_fit_names_its_fields(changes, words):
    config = dataclasses.replace(TrainConfig(start=StartConfig(random="miniature")), **changes)
    with pytest.raises(InterLCMError, match=words):
        config.check()


@pytest.mark.parametrize(
    ("stage", "options", "words"),
    [
        (Autoencoder, {"divergence": -1.0}, "stage.divergence is -1.0, but must be at least 0"),
        (ImageEncoder, {"masked": 1.0}, "stage.masked is 1.0, but must be from 0 to below 1"),
        (Prior, {"draws": 0, "condition_dropout": 2}, "condition_dropout is 2, .*; stage.draws is 0"),
        (Distillation, {"guidance": (3.0, 2.0)}, r"stage.guidance is \(3.0, 2.0\), but must be a range"),
    ],
)
def test_a_stages_options_that_do_not_fit_are_named(stage, options, words):
    with pytest.raises(InterLCMError, match=words):
        stage(**options)


def test_a_saved_configuration_says_which_stage_it_is_of():
    saved = TrainConfig(stage=Prior(draws=3)).to_json()
    assert saved["stage"] == {"name": "Prior", "draws": 3, "condition_dropout": 0.1, "scale_latents": True}
    assert saved["steps"] == 15_000
