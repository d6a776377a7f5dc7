"""The VAE against diffusers' AutoencoderKL: blocks, network, gradients, names."""

import dataclasses
import functools
from pathlib import Path

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.vae import Decoder
from flax import nnx

from interlcm_jax.convert.rules import places, to_torch
from interlcm_jax.convert.vae import TABLE
from interlcm_jax.files.safetensors import from_array
from interlcm_jax.models.vae import AutoencoderKL, VAEConfig
from interlcm_jax.models.weights import skeleton
from tests.parity.bridge import (
    BLOCK,
    CLOSED_FORM,
    NETWORK,
    assert_close,
    assert_gradient_close,
    assert_gradients_close,
    load,
    nhwc,
    randomize,
)

CONFIG = VAEConfig.miniature()
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

encode = nnx.jit(lambda vae, image: vae.encode(image))
decode = nnx.jit(lambda vae, latents: vae.decode(latents))
apply = nnx.jit(lambda block, x: block(x))


def pytorch_vae(config: VAEConfig) -> diffusers.AutoencoderKL:
    return diffusers.AutoencoderKL.from_config(config.to_json())


def jax_vae(state_dict: dict[str, torch.Tensor], config: VAEConfig = CONFIG) -> AutoencoderKL:
    return load(nnx.eval_shape(lambda: AutoencoderKL(config, rngs=nnx.Rngs(0))), state_dict, TABLE)


@pytest.fixture(scope="module")
def twins() -> tuple[diffusers.AutoencoderKL, AutoencoderKL]:
    theirs = randomize(pytorch_vae(CONFIG))
    return theirs, jax_vae(theirs.state_dict())


def submodule(network: nnx.Module, path: str) -> nnx.Module:
    return functools.reduce(
        lambda m, name: m[int(name)] if name.isdigit() else getattr(m, name), path.split("."), network
    )


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("path", "channels"),
    [
        ("encoder.down_blocks.0.resnets.0", 8),
        ("encoder.down_blocks.1.resnets.0", 8),  # with a shortcut convolution
        ("encoder.down_blocks.1.downsamplers.0", 16),
        ("encoder.mid_block.attentions.0", 24),
        ("decoder.mid_block", 24),
        ("decoder.up_blocks.2.resnets.1", 16),
        ("decoder.up_blocks.0.upsamplers.0", 24),
    ],
)
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 6, 10), (3, 7, 5)])
def test_block(twins, path, channels, batch, height, width):
    x = noise(batch, channels, height, width)
    arguments = (x, None) if ".resnets." in path else (x,)
    expected = twins[0].get_submodule(path)(*arguments)
    assert_close(apply(submodule(twins[1], path), nhwc(x)), expected, BLOCK)


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 32, 48), (3, 24, 16), (1, 37, 29)])
def test_encode(twins, batch, height, width):
    image = noise(batch, 3, height, width)
    posterior = twins[0].encode(image).latent_dist
    mean, logvar = encode(twins[1], nhwc(image))
    assert mean.shape == (batch, height // 8, width // 8, 4)
    assert_close(mean, posterior.mean, NETWORK)
    assert_close(logvar, posterior.logvar, NETWORK)


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 4, 6), (3, 3, 2)])
def test_decode(twins, batch, height, width):
    latents = noise(batch, 4, height, width)
    image = decode(twins[1], nhwc(latents))
    assert image.shape == (batch, 8 * height, 8 * width, 3)
    assert_close(image, twins[0].decode(latents).sample, NETWORK)


def test_log_variance_is_clipped(twins):
    """Far outside the range that images give, diffusers clips; so must we."""
    state_dict = twins[0].state_dict()
    state_dict["quant_conv.weight"] = 1e3 * state_dict["quant_conv.weight"]
    theirs = pytorch_vae(CONFIG)
    theirs.load_state_dict(state_dict)
    image = noise(1, 3, 32, 48)
    expected = theirs.encode(image).latent_dist.logvar.detach().numpy()
    assert expected.min() == -30
    assert expected.max() == 20
    logvar = encode(jax_vae(state_dict), nhwc(image))[1]
    np.testing.assert_allclose(logvar, expected.transpose(0, 2, 3, 1), rtol=0, atol=30 * NETWORK)


def test_downsampling_pads_bottom_and_right_only(twins):
    """Padding all round reads other pixels at every position; the two must be far apart for this to mean anything."""
    x = noise(1, 8, 6, 8)
    theirs = twins[0].encoder.down_blocks[0].downsamplers[0]
    expected = theirs(x)
    all_round = F.conv2d(x, theirs.conv.weight, theirs.conv.bias, stride=2, padding=1)
    assert all_round.shape == expected.shape
    assert (all_round - expected).abs().max() > 1
    assert_close(twins[1].encoder.down_blocks[0].downsamplers[0](nhwc(x)), expected, BLOCK)


def test_epsilon_of_every_norm(twins):
    """At a variance of 1e-6, an epsilon of 1e-5 instead of 1e-6 would more than halve the result."""
    norms = [(name, m) for name, m in twins[0].named_modules() if isinstance(m, torch.nn.GroupNorm)]
    assert len(norms) == 2 * 4 * (1 + 2) + 2 * (2 * 2 + 1 + 1)
    for name, norm in norms:
        x = 1e-3 * noise(1, norm.num_channels, 5, 4)
        assert_close(submodule(twins[1], name)(nhwc(x)), norm(x), CLOSED_FORM)


def test_gradients():
    """Parameters, image and latents, by a loss that touches mean, log variance and decoded image."""
    config = dataclasses.replace(CONFIG, block_out_channels=(8, 16))  # has blocks of every kind, compiles sooner
    theirs = randomize(pytorch_vae(config))
    ours = jax_vae(theirs.state_dict(), config)
    image, latents = noise(2, 3, 6, 8).requires_grad_(), noise(2, 4, 3, 4).requires_grad_()
    weights = noise(2, 4, 3, 4, seed=1), noise(2, 4, 3, 4, seed=2), noise(2, 3, 6, 8, seed=3)

    posterior = theirs.encode(image).latent_dist
    outputs = posterior.mean, posterior.logvar, theirs.decode(latents).sample
    sum((out * w).sum() for out, w in zip(outputs, weights, strict=True)).backward()

    def loss(vae, image, latents):
        outputs = *vae.encode(image), vae.decode(latents)
        return sum(jnp.sum(out * nhwc(w)) for out, w in zip(outputs, weights, strict=True))

    grads, image_grad, latents_grad = nnx.jit(nnx.grad(loss, argnums=(0, 1, 2)))(ours, nhwc(image), nhwc(latents))
    assert_gradient_close(image_grad, image.grad)
    assert_gradient_close(latents_grad, latents.grad)
    assert_gradients_close(grads, theirs, TABLE, zero=[r".*\.to_k\.bias"])


def test_old_attention_names(twins):
    state_dict = twins[0].state_dict()
    old = {
        functools.reduce(lambda k, new: k.replace(f".{new}.", f".{OLD_NAMES[new]}."), OLD_NAMES, k): v
        for k, v in state_dict.items()
    }
    assert len(old.keys() - state_dict.keys()) == 2 * 4 * 2
    jax.tree.map(np.testing.assert_array_equal, nnx.state(jax_vae(old)), nnx.state(twins[1]))


def test_export_writes_todays_names_and_loads_strictly(twins):
    weights = {
        ".".join(map(str, path)): from_array(np.asarray(leaf.get_value()), Path("test"))
        for path, leaf in nnx.to_flat_state(nnx.state(twins[1], nnx.Param))
    }
    exported = {k: torch.tensor(v.read()) for k, v in to_torch(weights, skeleton(twins[1]), TABLE).items()}
    loaded = pytorch_vae(CONFIG)
    loaded.load_state_dict(exported, strict=True)
    for key, tensor in twins[0].state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor), key


def test_real_size_has_the_keys_and_shapes_of_diffusers():
    with torch.device("meta"):
        expected = {k: tuple(v.shape) for k, v in pytorch_vae(VAEConfig()).state_dict().items()}
    abstract = nnx.eval_shape(lambda: AutoencoderKL(VAEConfig(), rngs=nnx.Rngs(0)))
    assert {p.key: p.shape for p in places(skeleton(abstract), TABLE).values()} == expected


def test_a_decoder_of_its_own_widths():
    """diffusers has no such autoencoder, but its decoder by itself takes any widths."""
    config = dataclasses.replace(CONFIG, decoder_block_out_channels=(4, 8, 16, 20))
    theirs = randomize(pytorch_vae(CONFIG))
    theirs.decoder = randomize(
        Decoder(
            in_channels=config.latent_channels,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=config.decoder_block_out_channels,
            layers_per_block=config.layers_per_block,
            norm_num_groups=config.norm_num_groups,
        ),
        seed=1,
    )
    ours = jax_vae(theirs.state_dict(), config)
    latents = noise(2, 4, 3, 4)
    assert_close(decode(ours, nhwc(latents)), theirs.decode(latents).sample, NETWORK)
