"""Gradients of a stage: of images against a discriminator, or of any one loss."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from interlcm_jax.metrics.image import ssim
from interlcm_jax.metrics.onet import onet_distance
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.models.discriminator import PatchDiscriminator
from interlcm_jax.models.lpips import Params as LPIPSParams
from interlcm_jax.models.lpips import lpips
from interlcm_jax.models.weights import values, with_values
from interlcm_jax.restoration import Networks
from interlcm_jax.training import losses
from interlcm_jax.training.config import LossConfig, TrainConfig
from interlcm_jax.training.stage import Generated, Images, Metrics
from interlcm_jax.training.stages import stage_of
from interlcm_jax.training.state import TrainState, Weights

# Gradients of (trained weights, discriminator), the discriminator's new running statistics, and the losses.
Gradients = tuple[tuple[Weights, Weights], Weights, Metrics]


def gradients(
    config: TrainConfig,
    model: ModelConfig,
    networks: Networks,
    discriminator: PatchDiscriminator,
    state: TrainState,
    frozen: Weights,
    perceptual: LPIPSParams | None,
    adversarial: Float[Array, ""],
    statistics: Weights,
    images: Images,
) -> Gradients:
    """Gradients of the run's stage. Only those of the trained networks are computed, and the discriminator's.

    Args:
        config: the run's.
        model: sizes, schedule and number of calls.
        networks: the networks, which may be abstract.
        discriminator: the discriminator, which may be abstract.
        state: the state before the step.
        frozen: the frozen networks' weights.
        perceptual: LPIPS' weights, where it has a weight.
        adversarial: 1 or 0, whether the discriminator counts yet.
        statistics: its running statistics.
        images: "lq" and "hq" in [-1, 1], and the stage's draws.
    """
    stage = stage_of(config)

    def whole(params: Weights) -> Networks:
        return with_values(networks, {**frozen, **params})

    if stage.generate is None:
        average = whole(state.ema)
        loss = jax.value_and_grad(
            lambda params: stage.loss(config, model, whole(params), average, images), has_aux=True
        )
        (value, metrics), grads = loss(state.params)
        return (grads, jax.tree.map(jnp.zeros_like, state.discriminator)), statistics, {"loss": value, **metrics}
    onet = getattr(whole(state.params), "onet", None)
    pixel_losses = functools.partial(_pixel_losses, config.losses, onet, perceptual)
    judge = functools.partial(_judge, discriminator, config.losses.batch_norm)
    judged = config.losses.adversarial or config.losses.matching
    return _image_gradients(
        lambda params: stage.generate(config, model, whole(params), images),
        pixel_losses,
        functools.partial(_verdict_gradients, config.losses, judge) if judged else None,
        adversarial,
        state,
        statistics,
    )


def _image_gradients(
    generate: Callable[[Weights], Generated],
    pixel_losses: Callable[[Array, Array], tuple[Array, Metrics]],
    verdict: Callable[[TrainState, Weights, Array, Array], tuple[Array, Weights, Weights, Metrics]] | None,
    adversarial: Float[Array, ""],
    state: TrainState,
    statistics: Weights,
) -> Gradients:
    """Of images: their own losses, and the discriminator's verdict where there is one.

    Both sides share one pass forward: the discriminator judges the very images the losses are of, with the weights it
    has before the step.
    """

    def images(params: Weights) -> tuple[tuple[Array, Array], Array]:
        made = generate(params)
        return (made.pictures, made.beside), made.wanted

    (restored, beside), back_to_params, hq = jax.vjp(images, state.params, has_aux=True)
    (pixel_loss, metrics), image_grad = jax.value_and_grad(pixel_losses, has_aux=True)(restored, hq)
    metrics["loss"] = pixel_loss + beside
    judged_grads = jax.tree.map(jnp.zeros_like, state.discriminator)
    if verdict is not None:
        verdict_grad, judged_grads, statistics, verdicts = verdict(state, statistics, restored, hq)
        image_grad += adversarial * verdict_grad
        metrics["loss"] += adversarial * verdicts.pop("loss")
        metrics |= verdicts
    (grads,) = back_to_params((image_grad, jnp.ones_like(beside)))
    return (grads, judged_grads), statistics, metrics


def _verdict_gradients(
    weights: LossConfig,
    judge: Callable[[Weights, Array, Weights], tuple[list[Array], Weights]],
    state: TrainState,
    statistics: Weights,
    restored: Float[Array, "B H W 3"],
    hq: Float[Array, "B H W 3"],
) -> tuple[Float[Array, "B H W 3"], Weights, Weights, Metrics]:
    """Gradients of the generator's loss to the images, of the discriminator's to its weights; its new statistics."""
    fake, back_to_fake, statistics = jax.vjp(judge, state.discriminator, restored, statistics, has_aux=True)
    fake_loss, fake_grad = jax.value_and_grad(lambda fake: losses.discriminator_fake_hinge(fake[-1]))(fake)

    def judge_real(params: Weights) -> tuple[Array, tuple[Weights, list[Array]]]:
        real, moved = judge(params, hq, statistics)
        return losses.discriminator_real_hinge(real[-1]), (moved, real)

    (real_loss, (statistics, real)), real_grads = jax.value_and_grad(judge_real, has_aux=True)(state.discriminator)
    (loss, metrics), verdict = jax.value_and_grad(functools.partial(_verdict, weights, real), has_aux=True)(fake)
    metrics |= {
        "loss": loss,
        "loss/discriminator": fake_loss + real_loss,
        "logits/real": real[-1].mean(),
        "logits/restored": fake[-1].mean(),
    }
    fake_grads = back_to_fake(fake_grad)[0]
    return back_to_fake(verdict)[1], jax.tree.map(jnp.add, fake_grads, real_grads), statistics, metrics


def _verdict(weights: LossConfig, real: list[Array], fake: list[Array]) -> tuple[Float[Array, ""], Metrics]:
    """What the restoration pays the discriminator, of its features of real and restored images, the logits last."""
    metrics = {"loss/adversarial": losses.generator_hinge(fake[-1])}
    total = weights.adversarial * metrics["loss/adversarial"]
    if weights.matching:
        metrics["loss/matching"] = losses.matching(fake[:-1], real[:-1])
        total += weights.matching * metrics["loss/matching"]
    return total, metrics


def _pixel_losses(
    weights: LossConfig, onet: nnx.Module | None, perceptual: LPIPSParams | None, restored: Array, hq: Array
) -> tuple[Float[Array, ""], Metrics]:
    """What the images cost by themselves. A loss of weight 0 isn't computed."""
    terms = {}
    if weights.l1:
        terms["l1"] = losses.l1(restored, hq)
    if weights.color:
        terms["color"] = losses.color(restored, hq)
    if weights.texture:
        terms["texture"] = losses.texture(restored, hq)
    if weights.finest:
        terms["finest"] = losses.finest(restored, hq)
    if weights.ssim:
        terms["ssim"] = 1 - ssim(restored, hq).mean()
    if weights.lpips:
        terms["lpips"] = lpips(perceptual, restored, hq, weights.lpips_input).mean()
    if weights.onet:
        terms["onet"] = onet_distance(onet, restored, hq).mean()
    total = sum((getattr(weights, name) * value for name, value in terms.items()), jnp.zeros(()))
    return total, {f"loss/{name}": value for name, value in terms.items()}


def _judge(
    discriminator: PatchDiscriminator, batch_norm: str, params: Weights, images: Array, statistics: Weights
) -> tuple[list[Float[Array, "B _ _ _"]], Weights]:
    """The discriminator's features in training, the logits last, and its moved statistics."""

    def features(images: Array) -> tuple[list[Array], Weights]:
        network = with_values(discriminator, {**params, **statistics})
        # Losses are in float32 whatever the compute dtype.
        return [x.astype(jnp.float32) for x in network.features(images, train=True)], values(network, nnx.BatchStat)

    if batch_norm == "global":
        return features(images)
    single, moved = jax.vmap(lambda image: features(image[None]))(images)
    return [x[:, 0] for x in single], jax.tree.map(lambda each: each.mean(0), moved)
