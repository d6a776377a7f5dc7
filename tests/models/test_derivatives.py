"""Whole networks with Winograd's convolutions and long attention have second derivatives, forward and backward."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from interlcm_jax.models.controlnet import ControlNet, ControlNetConfig
from interlcm_jax.models.unet import UNet2DCondition, UNetConfig
from interlcm_jax.models.vae import AutoencoderKL, VAEConfig
from interlcm_jax.models.weights import abstract
from tests.models.derivatives import DERIVATIVES
from tests.models.jaxprs import equations

WIDE = {"block_out_channels": (256,), "layers_per_block": 1, "cross_attention_dim": 32}
BLOCKS = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
LATENTS, TIME, CONTEXT = (1, 32, 32, 4), (1,), (1, 5, 32)
NETWORKS = {
    "unet": (UNet2DCondition, UNetConfig(**WIDE, **BLOCKS), UNet2DCondition.__call__, (LATENTS, TIME, CONTEXT)),
    "controlnet": (
        ControlNet,
        dataclasses.replace(ControlNetConfig(), **WIDE, down_block_types=BLOCKS["down_block_types"]),
        lambda net, *arrays: net(*arrays)[1],
        (LATENTS, TIME, CONTEXT, (1, 256, 256, 3)),
    ),
    "vae": (AutoencoderKL, VAEConfig(block_out_channels=(256, 256)), AutoencoderKL.decode, (LATENTS,)),
}


@pytest.mark.parametrize(
    ("name", "order"), [("unet", "jvp of vjp"), ("controlnet", "vjp of jvp"), ("vae", "vjp of jvp")]
)
def test_second_derivatives_by_inputs(name, order):
    kind, config, run, shapes = NETWORKS[name]
    graph, state = nnx.split(abstract(lambda rngs: kind(config, rngs=rngs)))
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]

    def take(state, *arrays):
        directions = tuple(jnp.ones_like(array) for array in arrays)
        return DERIVATIVES[order](lambda *arrays: run(nnx.merge(graph, state), *arrays).sum(), directions)(*arrays)

    traced = jax.jit(take).trace(state, *arrays)
    assert any(equation.primitive.name == "conv3x3" for equation in equations(traced.jaxpr.jaxpr))
    traced.lower()
