"""UNet and ControlNet against diffusers, rung by rung."""

import dataclasses

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock as TorchTransformerBlock
from diffusers.models.embeddings import TimestepEmbedding as TorchTimestepEmbedding
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.resnet import ResnetBlock2D as TorchResnet
from diffusers.models.transformers.transformer_2d import Transformer2DModel as TorchTransformer
from diffusers.pipelines.latent_consistency_models.pipeline_latent_consistency_img2img import (
    LatentConsistencyModelImg2ImgPipeline,
)
from flax import nnx

from interlcm_jax import InterLCMError
from interlcm_jax.convert.rules import places
from interlcm_jax.convert.unet import TABLE
from interlcm_jax.models.controlnet import ControlNet, ControlNetConfig
from interlcm_jax.models.embeddings import TimestepEmbedding, guidance_embedding, timestep_embedding
from interlcm_jax.models.transformer import BasicTransformerBlock, Transformer2DModel
from interlcm_jax.models.unet import UNet2DCondition, UNetConfig
from interlcm_jax.models.unet_blocks import ResnetBlock2D
from interlcm_jax.models.weights import skeleton
from tests.parity.bridge import (
    BLOCK,
    CLOSED_FORM,
    NETWORK,
    abstract,
    assert_close,
    load,
    load_block,
    nhwc,
    randomize,
    run,
)


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def array(x: torch.Tensor) -> jax.Array:
    return jnp.asarray(x.numpy())


def torch_unet(config: UNetConfig) -> diffusers.UNet2DConditionModel:
    return randomize(diffusers.UNet2DConditionModel.from_config(config.to_json()))


def torch_controlnet(config: ControlNetConfig) -> diffusers.ControlNetModel:
    return randomize(diffusers.ControlNetModel.from_config(config.to_json()), seed=1)


# PyTorch's float32 exp is one bit off the rounded value at a few of the frequencies, and 999 or 7000 times that bit is
# what its sine then shows. So diffusers' closed forms are met to 1e-6 where exp is rounded right, and to this one bit
# (2**-24 relative, times the argument) as they are.
ONE_BIT = 2.0**-24


@pytest.fixture
def rounded_exp(monkeypatch: pytest.MonkeyPatch):
    exact = torch.exp
    monkeypatch.setattr(torch, "exp", lambda x: exact(x.double()).float())


def their_timesteps(steps: torch.Tensor) -> torch.Tensor:
    return get_timestep_embedding(steps, 320, flip_sin_to_cos=True, downscale_freq_shift=0)


def their_guidance(w: torch.Tensor) -> torch.Tensor:
    return LatentConsistencyModelImg2ImgPipeline.get_guidance_scale_embedding(None, w, 256)


STEPS, GUIDANCE = torch.arange(0.0, 1000), torch.tensor([7.0, 0.0, 0.5, 6.5])


@pytest.mark.usefixtures("rounded_exp")
def test_closed_forms():
    assert_close(timestep_embedding(array(STEPS), 320), their_timesteps(STEPS), CLOSED_FORM)
    assert_close(guidance_embedding(array(GUIDANCE), 256), their_guidance(GUIDANCE), CLOSED_FORM)


def test_closed_forms_as_pytorch_rounds_them():
    assert_close(timestep_embedding(array(STEPS), 320), their_timesteps(STEPS), 1.1 * 999 * ONE_BIT)
    assert_close(guidance_embedding(array(GUIDANCE), 256), their_guidance(GUIDANCE), 1.2 * 7000 * ONE_BIT)


def test_time_embedding_mlp():
    theirs = randomize(TorchTimestepEmbedding(16, 64, cond_proj_dim=8))
    ours = load_block(abstract(TimestepEmbedding, 16, 64, 8), theirs, TABLE)
    emb, cond = normal(3, 16), normal(3, 8, seed=2)
    assert_close(run(ours, array(emb), array(cond)), theirs(emb, cond), BLOCK)


@pytest.mark.parametrize("epsilon", [1e-5, 1e-2])
def test_resnet(epsilon: float):
    theirs = TorchResnet(in_channels=16, out_channels=32, temb_channels=24, groups=4, eps=epsilon)
    theirs = randomize(theirs)
    ours = abstract(ResnetBlock2D, 16, 32, 24, num_groups=4, epsilon=epsilon)
    ours = load_block(ours, theirs, TABLE)
    x, temb = 1e-2 * normal(3, 16, 5, 7), normal(3, 24, seed=2)
    assert_close(run(ours, nhwc(x), array(temb)), theirs(x, temb), BLOCK)


# Few tokens and many: the feed-forward has a product for each half of its kernel only then.
@pytest.mark.parametrize("tokens", [35, 100])
def test_transformer_block(tokens):
    theirs = randomize(TorchTransformerBlock(32, 4, 8, cross_attention_dim=24))
    ours = load_block(abstract(BasicTransformerBlock, 32, 4, 24), theirs, TABLE)
    x, context = normal(3, tokens, 32), normal(3, 7, 24, seed=2)
    expected = theirs(x, encoder_hidden_states=context)
    assert_close(run(ours, array(x), ours.attn2.key_value(array(context))), expected, BLOCK)


def test_transformer_norm_epsilon_is_1e_6():
    theirs = randomize(TorchTransformer(4, 8, 32, norm_num_groups=4, cross_attention_dim=24))
    ours = load_block(abstract(Transformer2DModel, 32, 4, 24, 4, 1), theirs, TABLE)
    # At this scale the variance is 1e-6 too, so an epsilon of 1e-5 would change everything.
    x, context = 1e-3 * normal(1, 32, 5, 7), normal(1, 7, 24, seed=2)
    expected = theirs(x, encoder_hidden_states=context).sample
    assert_close(run(ours, nhwc(x), ours.key_values(array(context))), expected, BLOCK)


@pytest.mark.parametrize(("batch", "size"), [(1, (8, 8)), (3, (8, 12)), (1, (7, 9))])
def test_unet(batch: int, size: tuple[int, int]):
    config = UNetConfig.miniature()
    theirs = torch_unet(config)
    ours = load(abstract(UNet2DCondition, config), theirs.state_dict(), TABLE)
    latents, context = normal(batch, 4, *size), normal(batch, 7, config.cross_attention_dim, seed=2)
    cond, step = normal(batch, config.time_cond_proj_dim, seed=3), torch.tensor([499.0] * batch)
    with torch.no_grad():
        expected = theirs(latents, step, context, timestep_cond=cond).sample
    assert_close(run(ours, nhwc(latents), array(step), array(context), array(cond)), expected, NETWORK)


@pytest.mark.parametrize(("batch", "size"), [(1, (8, 8)), (3, (8, 12))])
def test_controlnet_into_unet(batch: int, size: tuple[int, int]):
    unet_config, config = UNetConfig.miniature(), ControlNetConfig.miniature()
    their_unet, theirs = torch_unet(unet_config), torch_controlnet(config)
    our_unet = load(abstract(UNet2DCondition, unet_config), their_unet.state_dict(), TABLE)
    ours = load(abstract(ControlNet, config), theirs.state_dict(), TABLE)
    latents, context = normal(batch, 4, *size), normal(batch, 7, config.cross_attention_dim, seed=2)
    image, step = normal(batch, 3, size[0] * 8, size[1] * 8, seed=3), torch.tensor([759.0])
    with torch.no_grad():
        down, mid = theirs(latents, step, context, image, return_dict=False)
        expected = their_unet(
            latents, step, context, down_block_additional_residuals=down, mid_block_additional_residual=mid
        ).sample
    our_down, our_mid = run(ours, nhwc(latents), array(step), array(context), nhwc(image))
    assert len(our_down) == len(down)
    for actual, residual in zip([*our_down, our_mid], [*down, mid], strict=True):
        assert_close(actual, residual, NETWORK)
    eps = run(our_unet, nhwc(latents), array(step), array(context), None, our_down, our_mid)
    assert_close(eps, expected, NETWORK)


def test_controlnet_from_unet_equals_diffusers():
    config = dataclasses.replace(UNetConfig.miniature(), time_cond_proj_dim=None)
    their_unet = torch_unet(config)
    unet = load(abstract(UNet2DCondition, config), their_unet.state_dict(), TABLE)
    widths = (4, 4, 4, 4)  # of one shape, since each shape compiles an initializer of its own
    theirs = diffusers.ControlNetModel.from_unet(their_unet, conditioning_embedding_out_channels=widths)
    config = ControlNetConfig.from_unet(config, conditioning_embedding_out_channels=widths)
    ours = ControlNet.from_unet(unet, config, rngs=nnx.Rngs(0))
    reference = load(abstract(ControlNet, config), theirs.state_dict(), TABLE)
    expected = dict(nnx.to_flat_state(nnx.state(reference)))
    for path, weight in nnx.to_flat_state(nnx.state(ours)):
        if path[:1] != ("controlnet_cond_embedding",):
            np.testing.assert_array_equal(weight.get_value(), expected[path].get_value(), err_msg=str(path))
    down, mid = run(ours, jnp.ones((1, 8, 8, 4)), jnp.array([999.0]), jnp.ones((1, 7, 48)), jnp.ones((1, 64, 64, 3)))
    assert all(not residual.any() for residual in [*down, mid])
    # The conditioning stack starts at random, but for its last convolution.
    stack = ours.controlnet_cond_embedding
    assert stack.conv_in.kernel.get_value().std() > 0.1
    assert not stack.conv_out.kernel.get_value().any()


def test_controlnet_of_another_size_than_the_unet():
    wide = dataclasses.replace(ControlNetConfig.miniature(), block_out_channels=(16, 48))
    unet = abstract(UNet2DCondition, UNetConfig.miniature())
    with pytest.raises(InterLCMError, match=r"down_blocks\.1\.resnets\.0\.conv1\.kernel .*mid_block"):
        ControlNet.from_unet(unet, wide, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("network", "config", "theirs"),
    [
        (UNet2DCondition, UNetConfig.lcm(), diffusers.UNet2DConditionModel),
        (UNet2DCondition, UNetConfig.sd15(), diffusers.UNet2DConditionModel),
        (ControlNet, ControlNetConfig.sd15(), diffusers.ControlNetModel),
    ],
)
def test_real_size_keys_shapes_and_count(network: type, config: UNetConfig, theirs: type):
    with torch.device("meta"):
        module = theirs.from_config(config.to_json())
    shapes = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    ours = skeleton(abstract(network, config))
    assert {place.key: place.shape for place in places(ours, TABLE).values()} == shapes
    assert sum(np.prod(spec.shape) for spec in ours.values()) == module.num_parameters()
