"""What a training run carries from step to step, as flat dictionaries of weights by path."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from interlcm_jax.models.discriminator import PatchDiscriminator
from interlcm_jax.models.weights import values
from interlcm_jax.restoration import Networks
from interlcm_jax.training.config import OptimizerConfig
from interlcm_jax.training.sharding import weight_spec
from interlcm_jax.training.stage import ENCODERS

Weights = dict[str, Array]  # by path, like "visual_encoder.conv_in.kernel"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that changes in training; nothing random is in it.

    Attributes:
        step: steps done, an int32 scalar.
        params: the trained weights, float32.
        ema: their moving average.
        optimizer: Adam's state for them.
        discriminator: the discriminator's weights, float32; None, with the next two, of a run without one.
        statistics: its running batch statistics.
        discriminator_optimizer: Adam's state for it.
    """

    step: Array
    params: Weights
    ema: Weights
    optimizer: optax.OptState
    discriminator: Weights | None = None
    statistics: Weights | None = None
    discriminator_optimizer: optax.OptState | None = None


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Adam after clipping, where that is asked for; the step scales its updates by the learning rate."""
    adam = optax.chain(optax.scale_by_adam(b1=config.b1, b2=config.b2))
    if config.clip_norm is None:
        return adam
    clip = optax.clip_by_global_norm(config.clip_norm)

    def update(
        grads: Weights, moments: optax.OptState, params: Weights | None = None
    ) -> tuple[Weights, optax.OptState]:
        # Clipping has no state, and no place in the optimizer's: a run may turn it on and off as it goes on.
        return adam.update(clip.update(grads, clip.init(grads))[0], moments, params)

    return optax.GradientTransformation(adam.init, update)


def learning_rate(config: OptimizerConfig) -> optax.Schedule:
    """Step to learning rate: half a cosine from the first to the final one."""
    alpha = config.final_learning_rate / config.learning_rate
    return optax.cosine_decay_schedule(config.learning_rate, config.decay_steps, alpha)


def split_weights(networks: Networks, names: tuple[str, ...] = ENCODERS) -> tuple[Weights, Weights]:
    """The networks' weights: (those of the networks named, the others); abstract networks give shapes."""
    flat = values(networks)
    trained = {path: value for path, value in flat.items() if path.split(".")[0] in names}
    return trained, {path: value for path, value in flat.items() if path not in trained}


def initial_state(params: Weights, judged: tuple[Weights, Weights] | None, config: OptimizerConfig) -> TrainState:
    """The state before the first step: the average starts at the weights. Jit it onto `state_shardings`.

    Args:
        params: the trained weights.
        judged: the discriminator's weights and running statistics (`discriminator_weights`); None: there is none.
        config: the optimizers'.
    """
    optimizer = make_optimizer(config)
    state = TrainState(jnp.zeros((), jnp.int32), params, jax.tree.map(jnp.copy, params), optimizer.init(params))
    if judged is None:
        return state
    discriminator, statistics = judged
    return dataclasses.replace(
        state,
        discriminator=discriminator,
        statistics=statistics,
        discriminator_optimizer=optimizer.init(discriminator),
    )


def discriminator_weights(discriminator: PatchDiscriminator | None) -> tuple[Weights, Weights] | None:
    """The discriminator's weights and running statistics; None of none."""
    return None if discriminator is None else (values(discriminator), values(discriminator, nnx.BatchStat))


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """The sharding of every array of a state, or of its shapes: moments and averages lie as their weights do."""

    def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        keys = [entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey)]
        return NamedSharding(mesh, weight_spec(keys[-1], leaf.shape, mesh) if keys else PartitionSpec())

    return jax.tree_util.tree_map_with_path(sharding, state)


def abstract_state(
    networks: Networks,
    discriminator: PatchDiscriminator | None,
    config: OptimizerConfig,
    mesh: Mesh,
    names: tuple[str, ...] = ENCODERS,
) -> Any:
    """The state's shapes on their shardings, for (abstract) networks: what a checkpoint is restored into."""
    start = functools.partial(initial_state, config=config)
    shapes = jax.eval_shape(start, split_weights(networks, names)[0], discriminator_weights(discriminator))
    return jax.tree.map(lambda spec, place: spec.update(sharding=place), shapes, state_shardings(shapes, mesh))
