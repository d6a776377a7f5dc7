"""The Visual Encoder against a PyTorch twin written from the description of the release."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from interlcm_jax.convert.rules import Table, places
from interlcm_jax.convert.visual_encoder import TABLE, infer_config
from interlcm_jax.models import visual_encoder
from interlcm_jax.models.layers import Init
from interlcm_jax.models.visual_encoder import VisualEncoder, VisualEncoderConfig
from interlcm_jax.models.weights import skeleton
from interlcm_jax.parity.visual_encoder import Attn, Res, Resize
from interlcm_jax.parity.visual_encoder import VisualEncoder as Twin
from tests.parity import bridge

MINIATURE = VisualEncoderConfig.miniature()
INIT: Init = {"dtype": jnp.float32, "param_dtype": jnp.float32, "rngs": nnx.Rngs(0)}


def randn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def blc(x):
    return jnp.asarray(x.detach().mT.numpy())


def apply(model, tokens):
    return jax.jit(lambda x: model(x))(jnp.asarray(tokens.numpy()))


def network(config=MINIATURE):
    """Without values: the conversion gives it all of them."""
    return nnx.eval_shape(lambda: VisualEncoder(config, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize("batch", [1, 3])
def test_context(batch):
    twin, tokens = bridge.randomize(Twin(MINIATURE)), randn(batch, 17, 48)
    ours = bridge.load(network(), twin.state_dict(), TABLE)
    bridge.assert_close(apply(ours, tokens), twin(tokens), bridge.NETWORK)


@pytest.mark.parametrize(("in_channels", "out_channels"), [(16, 16), (16, 24)])
@pytest.mark.parametrize("scale", [1, 1e-3], ids=["unit", "epsilon shows"])
def test_res_block(in_channels, out_channels, scale):
    twin, x = bridge.randomize(Res(in_channels, out_channels, MINIATURE)), scale * randn(3, in_channels, 13)
    twin.conv1.weight.data *= scale
    twin.conv1.bias.data *= scale
    ours = visual_encoder.ResBlock1d(MINIATURE, in_channels, out_channels, **INIT)
    bridge.assert_close(bridge.load(ours, twin.state_dict(), TABLE)(blc(x)), twin(x).mT, bridge.BLOCK)


@pytest.mark.parametrize("scale", [1, 1e-3], ids=["unit", "epsilon shows"])
def test_attention_block(scale):
    twin, x = bridge.randomize(Attn(32, MINIATURE)), scale * randn(3, 32, 13)
    ours = bridge.load(visual_encoder.AttnBlock1d(MINIATURE, 32, **INIT), twin.state_dict(), TABLE)
    bridge.assert_close(ours(blc(x)), twin(x).mT, bridge.BLOCK)


@pytest.mark.parametrize(("length", "size"), [(48, 16), (16, 32), (32, 48), (10, 7)])
def test_resize_reads_the_elements_that_pytorch_reads(length, size):
    twin, x = bridge.randomize(Resize(8, size)), randn(2, 8, length)
    table = Table(tuple(rule for rule in TABLE.rules if "scale" not in rule.path))  # there is no norm in it
    ours = bridge.load(visual_encoder.Resize1d(8, size, **INIT), twin.state_dict(), table)
    bridge.assert_close(ours(blc(x)), twin(x).mT, bridge.BLOCK)


def test_final_norm_has_its_own_epsilon():
    twin, tokens = bridge.randomize(Twin(MINIATURE)), randn(1, 17, 48)
    for name in ("conv2", "conv_out", "proj_out"):
        for key, tensor in twin.state_dict().items():
            if f".{name}." in key:
                tensor *= 1e-3
    ours = bridge.load(network(), twin.state_dict(), TABLE)
    bridge.assert_close(apply(ours, tokens), twin(tokens), bridge.NETWORK)


def test_real_key_list():
    config = VisualEncoderConfig()
    with torch.device("meta"):
        theirs = {key: tuple(value.shape) for key, value in Twin(config).state_dict().items()}
    ours = places(skeleton(network(config)), TABLE)
    assert {place.key: place.shape for place in ours.values()} == theirs
    assert infer_config(theirs, 768) == config


def test_gradients():
    twin, tokens, weight = bridge.randomize(Twin(MINIATURE)), randn(2, 17, 48), randn(2, 7, 48, seed=2)
    ours = bridge.load(network(), twin.state_dict(), TABLE)

    def loss(model, x):
        return jnp.sum(model(x) * jnp.asarray(weight.numpy()))

    by_weights, by_input = nnx.jit(nnx.grad(loss, argnums=(0, 1)))(ours, jnp.asarray(tokens.numpy()))
    tokens.requires_grad_()
    (twin(tokens) * weight).sum().backward()
    bridge.assert_gradients_close(by_weights, twin, TABLE, zero=[r"blocks\.\d+\.k\.bias"])
    reference = tokens.grad.numpy()
    assert np.abs(np.asarray(by_input) - reference).max() <= bridge.GRADIENT * np.abs(reference).max()
