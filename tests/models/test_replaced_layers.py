"""Whoever puts another layer in place of one of a network's gets that layer: LoRA, quantized layers, wrappers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from interlcm_jax.models.clip_vision import CLIPVision, CLIPVisionConfig
from interlcm_jax.models.controlnet import ControlNet, ControlNetConfig
from interlcm_jax.models.unet import UNet2DCondition, UNetConfig
from interlcm_jax.models.vae import AutoencoderKL, VAEConfig
from interlcm_jax.models.visual_encoder import VisualEncoder, VisualEncoderConfig

SAME = 2e-5


class Noting(nnx.Module):
    """Calls a layer, and notes that it was called."""

    def __init__(self, layer: nnx.Module, note):
        self.layer, self.note = layer, note

    def __call__(self, x):
        self.note(id(self))
        return self.layer(x)


class Wrapped(nnx.Module):
    """Calls a layer."""

    def __init__(self, layer: nnx.Module):
        self.layer = layer

    def __call__(self, x):
        return self.layer(x)


def unet_inputs(config):
    context = jnp.ones((1, 5, config.cross_attention_dim))
    return jnp.ones((1, 16, 16, config.in_channels)), jnp.array([7.0]), context


NETWORKS = {
    "unet": (
        UNet2DCondition,
        UNetConfig.miniature(),
        lambda net: net(*unet_inputs(net.config), timestep_cond=jnp.ones((1, net.config.time_cond_proj_dim))),
    ),
    "spatial_encoder": (
        ControlNet,
        ControlNetConfig.miniature(),
        lambda net: net(*unet_inputs(net.config), jnp.ones((1, 128, 128, 3)))[1],
    ),
    "clip_vision": (CLIPVision, CLIPVisionConfig.miniature(), lambda net: net(jnp.ones((1, 32, 32, 3)))),
    "vae": (AutoencoderKL, VAEConfig.miniature(), lambda net: net.decode(net.encode(jnp.ones((1, 64, 64, 3)))[0])),
    "visual_encoder": (
        VisualEncoder,
        VisualEncoderConfig.miniature(),
        lambda net: net(jnp.ones((1, net.config.tokens, net.config.features))),
    ),
}


def replace_layers(module: nnx.Module, make) -> int:
    """Puts `make(layer)` in place of every convolution and dense layer; returns their number."""
    count = 0
    places = [(None, node) for _, node in nnx.iter_graph(module) if isinstance(node, nnx.Module | nnx.List)]
    for _, node in places:
        items = enumerate(node) if isinstance(node, nnx.List) else list(vars(node).items())
        for name, layer in list(items):
            if isinstance(layer, nnx.Conv | nnx.Linear):
                new = make(layer)
                if isinstance(node, nnx.List):
                    node[name] = new
                else:
                    setattr(node, name, new)
                count += 1
    return count


def make(name: str):
    """A miniature network, and a call of it."""
    kind, config, run = NETWORKS[name]
    return kind(config, rngs=nnx.Rngs(0), dtype=jnp.float32, param_dtype=jnp.float32), run


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_is_called(name):
    network, run = make(name)
    before = np.asarray(nnx.jit(run)(network))
    called: list[int] = []
    count = replace_layers(network, lambda layer: Noting(layer, called.append))
    assert count > 5
    after = np.asarray(nnx.jit(run)(network))
    assert len(set(called)) == count
    np.testing.assert_allclose(after, before, atol=SAME * np.abs(before).max(), rtol=0)


def leaves(network: nnx.Module) -> set[tuple]:
    """The paths of all layers that hold no other."""
    modules = [path for path, module in nnx.iter_modules(network) if not isinstance(module, nnx.List)]
    return {path for path in modules if not any(path == other[: len(path)] != other for other in modules)}


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_capture_sees_every_layer(name, wrapped):
    network, run = make(name)
    if wrapped:
        replace_layers(network, Wrapped)

    def outputs(network):
        return nnx.capture(run, nnx.Intermediate, method_outputs=nnx.Intermediate)(network)[1]

    captured = nnx.to_flat_state(jax.eval_shape(outputs, network))
    assert leaves(network) <= {path[:-1] for path, _ in captured if path[-1] == "__call__"}


def test_a_network_of_wrapped_layers_is_trained():
    network, run = make("clip_vision")
    assert replace_layers(network, Wrapped) > 5
    optimizer = nnx.Optimizer(network, optax.sgd(1e-2), wrt=nnx.Param)
    before = jax.tree.map(np.asarray, nnx.split(network)[1])

    @nnx.jit
    def step(network, optimizer):
        loss, gradients = nnx.value_and_grad(lambda network: jnp.square(run(network)).mean())(network)
        optimizer.update(network, gradients)
        return loss

    losses = [float(step(network, optimizer)) for _ in range(2)]
    assert losses[1] < losses[0]
    assert jax.tree.structure(nnx.split(network)[1]) == jax.tree.structure(before)


def test_lora_on_attention_is_trained_and_nothing_else():
    config = dataclasses.replace(UNetConfig.miniature(), time_cond_proj_dim=None)
    unet = UNet2DCondition(config, rngs=nnx.Rngs(0), dtype=jnp.float32, param_dtype=jnp.float32)
    rngs = nnx.Rngs(1)
    for _, node in list(nnx.iter_graph(unet)):
        if hasattr(node, "to_q"):
            for name in ("to_q", "to_v"):
                layer = getattr(node, name)
                shape = (layer.in_features, 4, layer.out_features)
                setattr(node, name, nnx.LoRA(*shape, base_module=layer, rngs=rngs))
    inputs = unet_inputs(config)
    frozen = jax.tree.map(np.asarray, nnx.state(unet, nnx.All(nnx.Param, nnx.Not(nnx.LoRAParam))))
    before = np.asarray(unet(*inputs))
    optimizer = nnx.Optimizer(unet, optax.sgd(1.0), wrt=nnx.LoRAParam)

    @nnx.jit
    def step(unet, optimizer):
        trained = nnx.DiffState(0, nnx.LoRAParam)
        loss, grads = nnx.value_and_grad(lambda unet: jnp.square(unet(*inputs)).mean(), argnums=trained)(unet)
        optimizer.update(unet, grads)
        return loss

    losses = [float(step(unet, optimizer)) for _ in range(4)]
    assert losses[-1] < losses[0]
    assert np.abs(np.asarray(unet(*inputs)) - before).max() > 1e-3
    after = nnx.state(unet, nnx.All(nnx.Param, nnx.Not(nnx.LoRAParam)))
    for a, b in zip(jax.tree.leaves(frozen), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(a, b)
