"""One training step: the restoration and its losses, the discriminator beside it, in one program."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, UInt8

from interlcm_jax import losses
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.models.discriminator import PatchDiscriminator
from interlcm_jax.models.lpips import Params as LPIPSParams
from interlcm_jax.models.lpips import lpips
from interlcm_jax.models.weights import values, with_values
from interlcm_jax.restoration import Networks, restore
from interlcm_jax.training.config import LossConfig, TrainConfig
from interlcm_jax.training.state import TrainState, Weights, learning_rate, make_optimizer

Metrics = dict[str, Float[Array, ""]]
# What the backward pass computes again, by the config's name: (the blocks of every network, whole network calls).
REMAT = {"none": (False, False), "blocks": (True, False), "calls": (True, True)}
# The streams of a seed: what is drawn for one purpose never moves what is drawn for another.
NOISE = 1


def make_step(
    config: TrainConfig, model: ModelConfig, networks: Networks, discriminator: PatchDiscriminator
) -> Callable[[TrainState, Weights, LPIPSParams, Mapping[str, UInt8[Array, "B H W 3"]]], tuple[TrainState, Metrics]]:
    """The step as a function to jit: (state, frozen weights, LPIPS' weights, batch) -> (state, metrics).

    Generator and discriminator share one pass forward: the discriminator judges the very images the losses are of, with
    the weights it has before the step. Only the encoders' gradients are computed, through all calls to the pixels.

    Args:
        config: the run's.
        model: sizes, schedule and number of calls.
        networks: the five networks, which may be abstract, made with the run's `dtype` and `remat`.
        discriminator: the discriminator, which may be abstract.
    """
    optimizer = make_optimizer(config.optimizer)
    accumulated = _accumulated(functools.partial(gradients, config, model, networks, discriminator), config.accumulate)

    def step(
        state: TrainState, frozen: Weights, perceptual: LPIPSParams, batch: Mapping[str, Array]
    ) -> tuple[TrainState, Metrics]:
        images = {name: batch[name].astype(jnp.float32) / 127.5 - 1 for name in ("lq", "hq")}
        images["noise"] = training_noise(config.seed, state.step, model, images["lq"].shape)
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
            ema=jax.tree.map(lambda average, new: decay * average + (1 - decay) * new, state.ema, params),
            optimizer=moments,
            discriminator=started(judged[0], state.discriminator),
            statistics=started(statistics, state.statistics),
            discriminator_optimizer=started(judged[1], state.discriminator_optimizer),
        )
        return state, metrics

    return step


def training_noise(seed: int, step: Array, model: ModelConfig, shape: tuple[int, ...]) -> Float[Array, "B calls h w L"]:
    """The noise of each image at each call: a function of (seed, step) and the image's place in the global batch."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), NOISE), step)
    return jax.random.normal(key, (shape[0], model.num_network_calls, *model.latent_shape(shape)), jnp.float32)


def gradients(
    config: TrainConfig,
    model: ModelConfig,
    networks: Networks,
    discriminator: PatchDiscriminator,
    state: TrainState,
    frozen: Weights,
    perceptual: LPIPSParams,
    adversarial: Float[Array, ""],
    statistics: Weights,
    images: Mapping[str, Array],
) -> tuple[tuple[Weights, Weights], Weights, Metrics]:
    """Gradients of (encoders, discriminator), the discriminator's new running statistics, and the losses."""
    weights, hq = config.losses, images["hq"]

    def generate(params: Weights) -> Array:
        whole = with_values(networks, {**frozen, **params})
        noise = images["noise"].swapaxes(0, 1)
        return restore(whole, model, images["lq"], noise, remat_calls=REMAT[config.remat][1])

    judge = functools.partial(_judge, discriminator, weights.batch_norm)
    restored, back_to_params = jax.vjp(generate, state.params)
    (pixel_loss, metrics), image_grad = jax.value_and_grad(functools.partial(_pixel_losses, weights), has_aux=True)(
        restored, hq, perceptual
    )
    fake, back_to_fake, statistics = jax.vjp(judge, state.discriminator, restored, statistics, has_aux=True)
    generator_loss, verdict = jax.value_and_grad(losses.generator_hinge)(fake)
    fake_loss, fake_grad = jax.value_and_grad(losses.discriminator_fake_hinge)(fake)

    def judge_real(params: Weights) -> tuple[Array, Weights]:
        real, moved = judge(params, hq, statistics)
        return losses.discriminator_real_hinge(real), (moved, real)

    (real_loss, (statistics, real)), real_grads = jax.value_and_grad(judge_real, has_aux=True)(state.discriminator)
    fake_grads = back_to_fake(fake_grad)[0]
    image_grad += adversarial * weights.adversarial * back_to_fake(verdict)[1]
    (grads,) = back_to_params(image_grad)
    metrics |= {
        "loss": pixel_loss + adversarial * weights.adversarial * generator_loss,
        "loss/adversarial": generator_loss,
        "loss/discriminator": fake_loss + real_loss,
        "logits/real": real.mean(),
        "logits/restored": fake.mean(),
    }
    return (grads, jax.tree.map(jnp.add, fake_grads, real_grads)), statistics, metrics


def _pixel_losses(
    weights: LossConfig, restored: Array, hq: Array, perceptual: LPIPSParams
) -> tuple[Float[Array, ""], Metrics]:
    """What the restored images cost by themselves. A loss of weight 0 isn't computed."""
    terms = {}
    if weights.l1:
        terms["l1"] = losses.l1(restored, hq)
    if weights.lpips:
        terms["lpips"] = lpips(perceptual, restored, hq, weights.lpips_input).mean()
    total = sum((getattr(weights, name) * value for name, value in terms.items()), jnp.zeros(()))
    return total, {f"loss/{name}": value for name, value in terms.items()}


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
