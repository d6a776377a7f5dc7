"""Gradients through ControlNet and UNet, as training takes them, against PyTorch's autograd."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest
import torch
from flax import nnx

from interlcm_jax.convert.unet import TABLE
from interlcm_jax.models.controlnet import ControlNet, ControlNetConfig
from interlcm_jax.models.unet import UNet2DCondition, UNetConfig
from tests.parity import bridge
from tests.parity.test_unet import array, normal, torch_controlnet, torch_unet

UNET, CONTROLNET = UNetConfig.miniature(), ControlNetConfig.miniature()
STEPS = torch.tensor([759.0, 259.0])


class Gradients(NamedTuple):
    """JAX's gradients beside what carries PyTorch's in `.grad`, after one backward pass through both networks."""

    loss: tuple[jax.Array, torch.Tensor]
    unet: tuple[nnx.State, torch.nn.Module]
    controlnet: tuple[nnx.State, torch.nn.Module]
    inputs: dict[str, tuple[jax.Array, torch.Tensor]]


@pytest.fixture(scope="module")
def gradients() -> Gradients:
    their_unet, their_controlnet = torch_unet(UNET), torch_controlnet(CONTROLNET)
    unet = bridge.load(bridge.abstract(UNet2DCondition, UNET), their_unet.state_dict(), TABLE)
    controlnet = bridge.load(bridge.abstract(ControlNet, CONTROLNET), their_controlnet.state_dict(), TABLE)
    weight = normal(2, 4, 8, 12, seed=9)
    theirs = {
        "latents": normal(2, 4, 8, 12),
        "context": normal(2, 7, UNET.cross_attention_dim, seed=2),
        "image": normal(2, 3, 64, 96, seed=3),
        "cond": normal(2, UNET.time_cond_proj_dim, seed=4),
    }
    ours = [bridge.nhwc(x) if x.ndim == 4 else array(x) for x in theirs.values()]

    def loss(unet, controlnet, latents, context, image, cond):
        residuals = controlnet(latents, array(STEPS), context, image)
        return jnp.mean(unet(latents, array(STEPS), context, cond, *residuals) * bridge.nhwc(weight))

    value, (by_unet, by_controlnet, *by_inputs) = nnx.jit(nnx.value_and_grad(loss, argnums=range(6)))(
        unet, controlnet, *ours
    )
    return Gradients(
        (value, _backward(their_unet, their_controlnet, weight, *(x.requires_grad_() for x in theirs.values()))),
        (by_unet, their_unet),
        (by_controlnet, their_controlnet),
        dict(zip(theirs, zip(by_inputs, theirs.values(), strict=True), strict=True)),
    )


def _backward(unet, controlnet, weight, latents, context, image, cond) -> torch.Tensor:
    down, mid = controlnet(latents, STEPS, context, image, return_dict=False)
    residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
    loss = (unet(latents, STEPS, context, timestep_cond=cond, **residuals).sample * weight).mean()
    loss.backward()
    return loss


def test_loss(gradients):
    ours, theirs = gradients.loss
    assert abs(float(ours) - theirs.item()) < bridge.NETWORK


@pytest.mark.parametrize("network", ["unet", "controlnet"])
def test_parameters(gradients, network):
    bridge.assert_gradients_close(*getattr(gradients, network), TABLE)


@pytest.mark.parametrize("name", ["latents", "context", "image", "cond"])
def test_inputs(gradients, name):
    ours, theirs = gradients.inputs[name]
    bridge.assert_gradient_close(ours, theirs.grad)
