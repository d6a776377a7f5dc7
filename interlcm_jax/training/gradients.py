"""Gradients of a stage's losses: of images against a discriminator, or of any one loss."""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from interlcm_jax import losses
from interlcm_jax.metrics.onet import onet_distance
from interlcm_jax.models.discriminator import PatchDiscriminator
from interlcm_jax.models.lpips import Params as LPIPSParams
from interlcm_jax.models.lpips import lpips
from interlcm_jax.models.weights import values, with_values
from interlcm_jax.training.config import LossConfig
from interlcm_jax.training.stage import Gradients, Metrics
from interlcm_jax.training.state import TrainState, Weights


def loss_gradients(
    loss: Callable[[Weights], tuple[Float[Array, ""], Metrics]], state: TrainState, statistics: Weights
) -> Gradients:
    """Of one loss of the trained weights; the discriminator has no part in it.

    Args:
        loss: trained weights -> (loss, numbers to log).
        state: the state before the step.
        statistics: the discriminator's running statistics, given back as they are.
    """
    (value, metrics), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
    return (grads, jax.tree.map(jnp.zeros_like, state.discriminator)), statistics, {"loss": value, **metrics}


def image_gradients(
    generate: Callable[[Weights], tuple[Float[Array, "B H W 3"], Float[Array, ""]]],
    weights: LossConfig,
    discriminator: PatchDiscriminator,
    onet: nnx.Module | None,
    state: TrainState,
    perceptual: LPIPSParams | None,
    adversarial: Float[Array, ""],
    statistics: Weights,
    hq: Float[Array, "B H W 3"],
) -> Gradients:
    """Of images that should equal `hq`: pixel and perceptual losses, and the discriminator's verdict.

    Both sides share one pass forward: the discriminator judges the very images the losses are of, with the weights it
    has before the step.

    Args:
        generate: trained weights -> (images, a loss beside those of the images).
        weights: the losses' weights.
        discriminator: which may be abstract.
        onet: MTCNN's O-Net, where its features have a weight.
        state: the state before the step.
        perceptual: LPIPS' weights, where it has a weight.
        adversarial: 1 or 0, whether the discriminator counts yet.
        statistics: its running statistics.
        hq: the originals.
    """
    (restored, beside), back_to_params = jax.vjp(generate, state.params)
    pixel_losses = functools.partial(_pixel_losses, weights, onet, perceptual, hq)
    (pixel_loss, metrics), image_grad = jax.value_and_grad(pixel_losses, has_aux=True)(restored)
    metrics["loss"] = pixel_loss + beside
    judged_grads = jax.tree.map(jnp.zeros_like, state.discriminator)
    if weights.adversarial:
        judge = functools.partial(_judge, discriminator, weights.batch_norm)
        verdict_grad, judged_grads, statistics, verdicts = _verdict_gradients(judge, state, statistics, restored, hq)
        image_grad += adversarial * weights.adversarial * verdict_grad
        metrics["loss"] += adversarial * weights.adversarial * verdicts["loss/adversarial"]
        metrics |= verdicts
    (grads,) = back_to_params((image_grad, jnp.ones_like(beside)))
    return (grads, judged_grads), statistics, metrics


def _verdict_gradients(
    judge: Callable[[Weights, Array, Weights], tuple[Array, Weights]],
    state: TrainState,
    statistics: Weights,
    restored: Float[Array, "B H W 3"],
    hq: Float[Array, "B H W 3"],
) -> tuple[Float[Array, "B H W 3"], Weights, Weights, Metrics]:
    """Gradients of the generator's loss to the images, of the discriminator's to its weights; its new statistics."""
    fake, back_to_fake, statistics = jax.vjp(judge, state.discriminator, restored, statistics, has_aux=True)
    generator_loss, verdict = jax.value_and_grad(losses.generator_hinge)(fake)
    fake_loss, fake_grad = jax.value_and_grad(losses.discriminator_fake_hinge)(fake)

    def judge_real(params: Weights) -> tuple[Array, tuple[Weights, Array]]:
        real, moved = judge(params, hq, statistics)
        return losses.discriminator_real_hinge(real), (moved, real)

    (real_loss, (statistics, real)), real_grads = jax.value_and_grad(judge_real, has_aux=True)(state.discriminator)
    fake_grads = back_to_fake(fake_grad)[0]
    metrics = {
        "loss/adversarial": generator_loss,
        "loss/discriminator": fake_loss + real_loss,
        "logits/real": real.mean(),
        "logits/restored": fake.mean(),
    }
    return back_to_fake(verdict)[1], jax.tree.map(jnp.add, fake_grads, real_grads), statistics, metrics


def _pixel_losses(
    weights: LossConfig, onet: nnx.Module | None, perceptual: LPIPSParams | None, hq: Array, restored: Array
) -> tuple[Float[Array, ""], Metrics]:
    """What the images cost by themselves. A loss of weight 0 isn't computed."""
    terms = {}
    if weights.l1:
        terms["l1"] = losses.l1(restored, hq)
    if weights.lpips:
        terms["lpips"] = lpips(perceptual, restored, hq, weights.lpips_input).mean()
    if weights.onet:
        terms["onet"] = onet_distance(onet, restored, hq).mean()
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


def whole(networks: nnx.Module, frozen: Mapping[str, Array], params: Weights) -> nnx.Module:
    """The networks with their weights, trained and frozen."""
    return with_values(networks, {**frozen, **params})
