"""One training step of any stage, in one program: gradients in parts, both Adams, the moving average."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, UInt8

from interlcm_jax.imaging.pixels import to_float
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.models.discriminator import PatchDiscriminator
from interlcm_jax.models.lpips import Params as LPIPSParams
from interlcm_jax.restoration import Networks
from interlcm_jax.training.config import TrainConfig
from interlcm_jax.training.gradients import gradients
from interlcm_jax.training.stage import Metrics
from interlcm_jax.training.stages import stage_of
from interlcm_jax.training.state import TrainState, Weights, learning_rate, make_optimizer


def make_step(
    config: TrainConfig, model: ModelConfig, networks: Networks, discriminator: PatchDiscriminator
) -> Callable[[TrainState, Weights, LPIPSParams, Mapping[str, UInt8[Array, "B H W 3"]]], tuple[TrainState, Metrics]]:
    """The step as a function to jit: (state, frozen weights, LPIPS' weights, batch) -> (state, metrics).

    Args:
        config: the run's; its stage says what is trained, and on which losses.
        model: sizes, schedule and number of calls.
        networks: the networks, which may be abstract, made with the run's `dtype` and `remat`.
        discriminator: the discriminator, which may be abstract.
    """
    optimizer = make_optimizer(config.optimizer)
    stage = stage_of(config)
    accumulated = _accumulated(functools.partial(gradients, config, model, networks, discriminator), config.accumulate)

    def step(
        state: TrainState, frozen: Weights, perceptual: LPIPSParams, batch: Mapping[str, Array]
    ) -> tuple[TrainState, Metrics]:
        images = {name: to_float(batch[name]) for name in ("lq", "hq")}
        images |= stage.draw(config, model, state.step, images["lq"].shape)
        adversarial = (state.step >= config.losses.adversarial_from).astype(jnp.float32)
        run = functools.partial(accumulated, state, frozen, perceptual, adversarial)
        (grads, discriminator_grads), statistics, metrics = run(images)
        # By the run's step for both: the discriminator's first one isn't the run's.
        rate = learning_rate(config.optimizer)(state.step.astype(jnp.float32))
        update = functools.partial(_update, optimizer, rate)
        params, moments = update(grads, state.optimizer, state.params)
        judged = update(discriminator_grads, state.discriminator_optimizer, state.discriminator)
        # Until its first step the discriminator stays as it is, its moments and statistics too.
        started = functools.partial(jax.tree.map, lambda new, old: jnp.where(adversarial > 0, new, old))
        decay = config.optimizer.ema
        metrics |= {
            "grad_norm": optax.tree.norm(grads),
            "grad_norm/discriminator": optax.tree.norm(discriminator_grads) * adversarial,
            "param_norm": optax.tree.norm(params),
            "learning_rate": rate,
        }
        state = TrainState(
            step=state.step + 1,
            params=params,
            # In this form the average of a weight that stays is that weight, to the bit.
            ema=jax.tree.map(lambda average, new: average + (1 - decay) * (new - average), state.ema, params),
            optimizer=moments,
            discriminator=started(judged[0], state.discriminator),
            statistics=started(statistics, state.statistics),
            discriminator_optimizer=started(judged[1], state.discriminator_optimizer),
        )
        return state, metrics

    return step


def _accumulated(part_gradients: Callable[..., Any], parts: int) -> Callable[..., Any]:
    """`part_gradients` over the batch in parts, one after the other: means of gradients and metrics.

    Image i is in part i modulo `parts`, so that each device takes its own images in every part.
    """

    def run(state: TrainState, frozen: Weights, perceptual: LPIPSParams, adversarial: Array, images: Any) -> Any:
        run_part = functools.partial(part_gradients, state, frozen, perceptual, adversarial)
        if parts == 1:
            return run_part(state.statistics, images)
        split = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), images)

        def add(carry: Any, part: Any) -> tuple[Any, None]:
            statistics, total = carry
            grads, statistics, metrics = run_part(statistics, part)
            return (statistics, jax.tree.map(jnp.add, total, (grads, metrics))), None

        grads, _, metrics = jax.eval_shape(run_part, state.statistics, jax.tree.map(lambda x: x[0], split))
        zeros = jax.tree.map(lambda spec: jnp.zeros(spec.shape, spec.dtype), (grads, metrics))
        (statistics, total), _ = jax.lax.scan(add, (state.statistics, zeros), split)
        grads, metrics = jax.tree.map(lambda x: x / parts, total)
        return grads, statistics, metrics

    return run


def _update(
    optimizer: optax.GradientTransformation,
    rate: Float[Array, ""],
    grads: Weights,
    moments: optax.OptState,
    params: Weights,
) -> tuple[Weights, optax.OptState]:
    # Optax raises floats to integer powers, which a user's strict promotion would refuse.
    with jax.numpy_dtype_promotion("standard"):
        updates, moments = optimizer.update(grads, moments, params)
    return jax.tree.map(lambda weight, update: weight - rate * update, params, updates), moments
