"""From a training run's checkpoint to a model folder: what `interlcm restore` and the others take."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from interlcm_jax.errors import InterLCMError
from interlcm_jax.model_folder import NETWORKS, ModelConfig
from interlcm_jax.models.weights import abstract, values, with_values
from interlcm_jax.pipeline import InterLCM
from interlcm_jax.restoration import Networks
from interlcm_jax.training.checkpoint_reader import CheckpointReader
from interlcm_jax.training.config import MeshConfig, StartConfig
from interlcm_jax.training.sharding import make_mesh, sharding_rule
from interlcm_jax.training.start import load_frozen, load_published_networks

CHECKPOINTS = "checkpoints"  # in a run's folder
# Of a saved run's `start`: all that says where frozen networks come from. Other versions have other fields besides.
_SOURCES = ("model", "lcm", "clip", "random")


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
    with CheckpointReader(run / CHECKPOINTS) as checkpoints:
        saved = checkpoints.read_config(step)
        weights = checkpoints.read("ema" if ema else "params", step)
        step = checkpoints.latest() if step is None else step
    start, seed = _start_of(saved["train"], run)
    model = ModelConfig.from_json(saved["model"])
    # A stage's own networks are in no model.
    trained = {path.split(".")[0] for path in weights} & set(NETWORKS)
    origin = {"origin": f"{run.name}, step {step}{', EMA' if ema else ''}", "license": license}
    model = dataclasses.replace(model, weights={**model.weights, **dict.fromkeys(sorted(trained), origin)})
    mesh = make_mesh(MeshConfig(), jax.local_devices()[:1])
    networks = abstract(lambda rngs: Networks(model, rngs=rngs))
    published = load_published_networks(start, sharding=sharding_rule(mesh))
    load_frozen(networks, [name for name in NETWORKS if name not in trained], start, seed, mesh, published)
    own = {path: jnp.asarray(array) for path, array in weights.items() if path.split(".")[0] in trained}
    return InterLCM(model, with_values(networks, {**values(networks), **own}))


def _start_of(saved: dict[str, Any], run: Path) -> tuple[StartConfig, int]:
    """Of a run's configuration, what its frozen networks come from, and its seed."""
    # Version 0.1 could take a model without some of its networks: what stood in for them isn't saved.
    if missing := saved.get("start", {}).get("without"):
        raise InterLCMError(
            f"{run}: a run of version 0.1 that left out {', '.join(missing)} of the model it started from; export it "
            "with that version"
        )
    try:
        return StartConfig(**{name: saved["start"][name] for name in _SOURCES}), saved["seed"]
    except (KeyError, TypeError) as error:
        raise InterLCMError(f"{run}: its configuration is of another version ({error})") from error
