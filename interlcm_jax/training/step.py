"""One training step of any stage, in one program: losses, gradients, in parts, both Adams, the moving average."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, UInt8

from interlcm_jax.imaging.pixels import to_float
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.models.discriminator import PatchDiscriminator
from interlcm_jax.models.weights import values, with_values
from interlcm_jax.restoration import Networks
from interlcm_jax.training import losses
from interlcm_jax.training.config import TrainConfig
from interlcm_jax.training.losses import Judges
from interlcm_jax.training.stage import Images, Metrics, Stage, stream
from interlcm_jax.training.state import TrainState, Weights, learning_rate, make_optimizer


class Gradients(NamedTuple):
    """Of one batch.

    Attributes:
        params: of the loss, to the trained weights.
        discriminator: of the discriminator's loss, to its weights; None without one.
        statistics: the discriminator's running statistics, moved by the batch; None without one.
        metrics: losses and logits by their names in the log.
    """

    params: Weights
    discriminator: Weights | None
    statistics: Weights | None
    metrics: Metrics


Batch = Mapping[str, UInt8[Array, "B H W 3"]]
Step = Callable[[TrainState, Weights, Judges, Batch], tuple[TrainState, Metrics]]


def make_step(
    config: TrainConfig, model: ModelConfig, networks: Networks, discriminator: PatchDiscriminator | None
) -> Step:
    """The step as a function to jit: (state, frozen weights, judges, batch) -> (state, metrics).

    Args:
        config: the run's; its stage says what is trained, and on which losses.
        model: sizes, schedule and number of calls.
        networks: the networks, which may be abstract, made with the run's `dtype` and `remat`.
        discriminator: the discriminator, which may be abstract; None where the stage's losses have none.
    """
    stage, optimizer = config.stage, make_optimizer(config.optimizer)

    def step(state: TrainState, frozen: Weights, judges: Judges, batch: Batch) -> tuple[TrainState, Metrics]:
        images = {name: to_float(batch[name]) for name in ("lq", "hq")}
        key = functools.partial(stream, config.seed, step=state.step)
        images |= stage.draw(key, model, images["lq"].shape)
        part = functools.partial(gradients, stage, model, networks, discriminator, state, frozen, judges)
        grads = accumulated(part, config.accumulate)(state.statistics, images)
        # By the run's step for both: the discriminator's first one isn't the run's.
        rate = learning_rate(config.optimizer)(state.step.astype(jnp.float32))
        params, moments = _update(optimizer, rate, grads.params, state.optimizer, state.params)
        decay = config.optimizer.ema
        metrics = grads.metrics | {
            "grad_norm": optax.tree.norm(grads.params),
            "param_norm": optax.tree.norm(params),
            "learning_rate": rate,
        }
        judged = (state.discriminator, state.statistics, state.discriminator_optimizer)
        if discriminator is not None:
            weights, its_moments = _update(
                optimizer, rate, grads.discriminator, state.discriminator_optimizer, state.discriminator
            )
            # Until its first step the discriminator stays as it is, its moments and statistics too.
            started = state.step >= stage.losses.adversarial_from
            new = (weights, grads.statistics, its_moments)
            judged = jax.tree.map(lambda new, old: jnp.where(started, new, old), new, judged)
            metrics["grad_norm/discriminator"] = optax.tree.norm(grads.discriminator) * started.astype(jnp.float32)
        # In this form the average of a weight that stays is that weight, to the bit.
        ema = jax.tree.map(lambda average, new: average + (1 - decay) * (new - average), state.ema, params)
        return TrainState(state.step + 1, params, ema, moments, *judged), metrics

    return step


def gradients(
    stage: Stage,
    model: ModelConfig,
    networks: Networks,
    discriminator: PatchDiscriminator | None,
    state: TrainState,
    frozen: Weights,
    judges: Judges,
    statistics: Weights | None,
    images: Images,
) -> Gradients:
    """Gradients of a stage's loss. Only those of the trained networks are computed, and the discriminator's.

    Args:
        stage: what is trained, and on which losses.
        model: sizes, schedule and number of calls.
        networks: the networks, which may be abstract.
        discriminator: the discriminator, which may be abstract, or None.
        state: the state before the step.
        frozen: the frozen networks' weights.
        judges: the networks that its losses judge by.
        statistics: the discriminator's running statistics, or None.
        images: "lq" and "hq" in [-1, 1], and the stage's draws.
    """

    def whole(params: Weights) -> Networks:
        return with_values(networks, {**frozen, **params})

    if stage.losses is None:
        average = whole(state.ema)
        loss = jax.value_and_grad(lambda params: stage.loss(whole(params), average, model, images), has_aux=True)
        (value, metrics), grads = loss(state.params)
        return Gradients(grads, None, None, {"loss": value, **metrics})

    def pictures(params: Weights) -> tuple[tuple[Array, Array], Array]:
        made = stage.generate(whole(params), model, images)
        return (made.pictures, made.beside), made.wanted

    # Both sides share one pass forward: the discriminator judges the very pictures that the losses are of.
    (restored, beside), back_to_params, hq = jax.vjp(pictures, state.params, has_aux=True)
    own = jax.value_and_grad(functools.partial(losses.picture_losses, stage.losses, judges), has_aux=True)
    (loss, metrics), picture_grad = own(restored, hq)
    metrics["loss"] = loss + beside
    judged_grads = None
    if discriminator is not None:
        judge = functools.partial(_judge, discriminator, stage.losses.batch_norm)
        verdict_grad, judged_grads, statistics, verdict = _verdict(judge, state, statistics, restored, hq)
        weight = stage.losses.adversarial * (state.step >= stage.losses.adversarial_from).astype(jnp.float32)
        picture_grad += weight * verdict_grad
        metrics |= verdict
        metrics["loss"] += weight * metrics["loss/adversarial"]
    (grads,) = back_to_params((picture_grad, jnp.ones_like(beside)))
    return Gradients(grads, judged_grads, statistics, metrics)


def _verdict(
    judge: Callable[[Weights, Array, Weights], tuple[Float[Array, "B h w 1"], Weights]],
    state: TrainState,
    statistics: Weights,
    restored: Float[Array, "B H W 3"],
    hq: Float[Array, "B H W 3"],
) -> tuple[Float[Array, "B H W 3"], Weights, Weights, Metrics]:
    """Gradients of the verdict to the images, of the discriminator's loss to its weights; its new statistics.

    The discriminator has the weights that it has before the step.
    """
    fake, back_to_fake, statistics = jax.vjp(judge, state.discriminator, restored, statistics, has_aux=True)
    fake_loss, fake_grad = jax.value_and_grad(losses.discriminator_fake_hinge)(fake)

    def judge_real(params: Weights) -> tuple[Array, tuple[Weights, Array]]:
        real, moved = judge(params, hq, statistics)
        return losses.discriminator_real_hinge(real), (moved, real)

    (real_loss, (statistics, real)), real_grads = jax.value_and_grad(judge_real, has_aux=True)(state.discriminator)
    verdict, verdict_grad = jax.value_and_grad(losses.generator_hinge)(fake)
    metrics = {
        "loss/adversarial": verdict,
        "loss/discriminator": fake_loss + real_loss,
        "logits/real": real.mean(),
        "logits/restored": fake.mean(),
    }
    fake_grads = back_to_fake(fake_grad)[0]
    return back_to_fake(verdict_grad)[1], jax.tree.map(jnp.add, fake_grads, real_grads), statistics, metrics


def _judge(
    discriminator: PatchDiscriminator, batch_norm: str, params: Weights, images: Array, statistics: Weights
) -> tuple[Float[Array, "B h w 1"], Weights]:
    """The discriminator's logits in training, and its moved statistics."""

    def logits(images: Array) -> tuple[Array, Weights]:
        network = with_values(discriminator, {**params, **statistics})
        # Losses are in float32 whatever the compute dtype.
        return network(images, train=True).astype(jnp.float32), values(network, nnx.BatchStat)

    if batch_norm == "global":
        return logits(images)
    single, moved = jax.vmap(lambda image: logits(image[None]))(images)
    return single[:, 0], jax.tree.map(lambda each: each.mean(0), moved)


def accumulated(
    part_gradients: Callable[[Weights | None, Images], Gradients], parts: int
) -> Callable[[Weights | None, Images], Gradients]:
    """`part_gradients` over the batch in parts, one after the other: means of gradients and metrics.

    Image i is in part i modulo `parts`, so that each device takes its own images in every part. Statistics go from part
    to part.
    """
    if parts == 1:
        return part_gradients

    def run(statistics: Weights | None, images: Images) -> Gradients:
        split = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), images)

        def add(carry: tuple[Weights | None, Any], part: Images) -> tuple[tuple[Weights | None, Any], None]:
            statistics, total = carry
            found = part_gradients(statistics, part)
            return (found.statistics, jax.tree.map(jnp.add, total, found._replace(statistics=None))), None

        found = jax.eval_shape(part_gradients, statistics, jax.tree.map(lambda x: x[0], split))
        zeros = jax.tree.map(lambda spec: jnp.zeros(spec.shape, spec.dtype), found._replace(statistics=None))
        (statistics, total), _ = jax.lax.scan(add, (statistics, zeros), split)
        return jax.tree.map(lambda x: x / parts, total)._replace(statistics=statistics)

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
