"""What one stage of training is: the networks it trains, by which loss, and how its progress is shown."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from flax import nnx
from jaxtyping import Array, Float

from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.restoration import Networks
from interlcm_jax.training.config import TrainConfig

Metrics = dict[str, Float[Array, ""]]
Images = Mapping[str, Array]  # "lq" and "hq" in [-1, 1], and the stage's own draws, all (B, ...)


class Generated(NamedTuple):
    """What a stage makes pictures of, to be judged.

    Attributes:
        pictures: (B, H, W, 3), near [-1, 1].
        wanted: what they should equal.
        beside: a loss beside those of the pictures.
    """

    pictures: Float[Array, "B H W 3"]
    wanted: Float[Array, "B H W 3"]
    beside: Float[Array, ""]


def no_helpers(config: TrainConfig, model: ModelConfig) -> dict[str, nnx.Module]:
    """Of a stage that needs the model's five networks alone."""
    return {}


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage; each is a file of `training.stages`. It has either `generate` or `loss`.

    Attributes:
        trained: the networks, of the model or of `helpers`, whose weights are trained. The others are frozen.
        draw: (config, model, step, images' shape) -> the step's random numbers by name, a leading axis of images.
        show: (networks, model, lq, hq) -> the pictures (B, H, W, 3) by which people and PSNR judge the stage.
        generate: (config, model, networks, images) -> pictures, judged by the losses of `LossConfig`, the discriminator
            among them.
        loss: (config, model, networks, the same with averaged weights, images) -> (the loss, numbers to log).
        helpers: (config, model) -> networks besides the model's five, by name, as shapes. No model folder holds them.
        copied: helpers that start as one of the model folder's networks, by name.
    """

    trained: tuple[str, ...]
    draw: Callable[[TrainConfig, ModelConfig, Array, tuple[int, ...]], dict[str, Array]]
    show: Callable[[Networks, ModelConfig, Array, Array], Array]
    generate: Callable[[TrainConfig, ModelConfig, Networks, Images], Generated] | None = None
    loss: Callable[[TrainConfig, ModelConfig, Networks, Networks, Images], tuple[Array, Metrics]] | None = None
    helpers: Callable[[TrainConfig, ModelConfig], dict[str, nnx.Module]] = no_helpers
    copied: Mapping[str, str] = dataclasses.field(default_factory=dict)


# Streams of a seed: what is drawn for one purpose never moves what is drawn for another. Initial weights have 11 to 13.
NOISE, POSTERIOR, MASK, DIFFUSION, GUIDANCE, DROPOUT, CORNER = 1, 2, 3, 4, 5, 6, 7


def stream(config: TrainConfig, number: int, step: Array) -> Any:
    """The key of a stream at a step: a function of (seed, stream, step)."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), number), step)
