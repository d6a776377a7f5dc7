"""From a training run's checkpoint to a model folder: what `interlcm restore` and the others take."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from interlcm_jax.data.loader import DataConfig
from interlcm_jax.errors import InterLCMError
from interlcm_jax.model_folder import NETWORKS, ModelConfig
from interlcm_jax.models.weights import abstract, with_values
from interlcm_jax.pipeline import InterLCM
from interlcm_jax.restoration import Networks
from interlcm_jax.training.checkpoint import Checkpoints
from interlcm_jax.training.config import MeshConfig, StartConfig, TrainConfig
from interlcm_jax.training.sharding import make_mesh
from interlcm_jax.training.stages import stage_of
from interlcm_jax.training.start import load_start
from interlcm_jax.training.state import split_weights

CHECKPOINTS = "checkpoints"  # in a run's folder


def trained_model(run: Path, step: int | None = None, *, ema: bool = True, license: str = "not stated") -> InterLCM:
    """The model that a checkpoint has trained, in float32, with the frozen networks that the run started from.

    Args:
        run: the run's folder.
        step: which checkpoint; None: the newest.
        ema: the trained weights' moving average, or else the weights themselves.
        license: of the trained weights, for the record.

    Raises:
        InterLCMError: there is no such checkpoint, or what the run started from is no longer there.
    """
    with Checkpoints.open(run / CHECKPOINTS) as checkpoints:
        saved = checkpoints.read_config(step)
        weights = checkpoints.read("ema" if ema else "params", step)
        step = checkpoints.latest() if step is None else step
    config = _start_of(saved["train"], run)
    start = load_start(config, make_mesh(MeshConfig(), jax.local_devices()[:1]))
    model = ModelConfig.from_json(saved["model"])
    origin = {"origin": f"{run.name}, step {step}{', EMA' if ema else ''}", "license": license}
    trained = stage_of(config).trained
    named = {name: origin for name in trained if name in NETWORKS}
    named |= {name: {"origin": "zero: trained without it", "license": license} for name in config.start.without}
    model = dataclasses.replace(model, weights={**model.weights, **named})
    arrays = {path: jnp.asarray(array) for path, array in weights.items()}
    # Without the stage's helpers, which no model has.
    networks = abstract(lambda rngs: Networks(model, rngs=rngs))
    return InterLCM(model, with_values(networks, {**split_weights(start.networks, trained)[1], **arrays}))


def _start_of(saved: dict[str, Any], run: Path) -> TrainConfig:
    """Of a run's configuration, what says where its frozen networks come from."""
    try:
        start = StartConfig(**saved["start"])
        return TrainConfig(
            start=start,
            data=DataConfig(image_size=saved["data"]["image_size"]),
            stage=saved["stage"],
            seed=saved["seed"],
            dtype="float32",
        )
    except (KeyError, TypeError) as error:
        raise InterLCMError(f"{run}: its configuration is of another version ({error})") from error
