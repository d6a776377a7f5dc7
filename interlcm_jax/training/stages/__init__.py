"""The stages of training, in the order in which a model is made from nothing; the last is InterLCM's own training."""

import dataclasses

from interlcm_jax.training.config import TrainConfig
from interlcm_jax.training.stage import Stage
from interlcm_jax.training.stages import autoencoder, distillation, image_encoder, prior, restoration, warm_up

_STAGES = {
    "autoencoder": autoencoder.STAGE,
    "token_tower": image_encoder.STAGE,
    "prior": prior.STAGE,
    "distillation": distillation.STAGE,
    "warm_up": warm_up.STAGE,
    "restoration": restoration.STAGE,
}


def stage_of(config: TrainConfig) -> Stage:
    """The stage that a run trains, but for the encoders that it does without."""
    stage = _STAGES[config.stage]
    return dataclasses.replace(stage, trained=tuple(name for name in stage.trained if name not in config.start.without))
