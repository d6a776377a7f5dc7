"""Plain mistakes in calling a network are said in the network's words; timesteps are taken as people write them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from interlcm_jax.errors import InterLCMError
from interlcm_jax.models.clip_vision import CLIPVision, CLIPVisionConfig
from interlcm_jax.models.controlnet import ControlNet, ControlNetConfig
from interlcm_jax.models.unet import UNet2DCondition, UNetConfig
from interlcm_jax.models.vae import AutoencoderKL, VAEConfig
from interlcm_jax.models.visual_encoder import VisualEncoder, VisualEncoderConfig
from interlcm_jax.models.weights import abstract
from tests.models.random_weights import fill_randomly

LATENTS, CONTEXT, IMAGE = jnp.zeros((2, 8, 8, 4)), jnp.zeros((2, 5, 48)), jnp.zeros((2, 64, 64, 3))
STEP = jnp.array([499.0])
UNET, CONTROL = UNetConfig.miniature(), ControlNetConfig.miniature()
PLAIN = UNetConfig(**{**vars(UNET), "time_cond_proj_dim": None})


class Tensor:
    """Stands for PyTorch's, which these networks don't take."""

    shape, ndim, dtype = (2, 8, 8, 4), 4, "float32"


pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.mark.parametrize(
    ("kind", "config", "call", "message"),
    [
        (UNet2DCondition, UNET, lambda n: n(LATENTS.swapaxes(1, 3), STEP, CONTEXT), r"\(B, H, W, 4\), channels last"),
        (UNet2DCondition, UNET, lambda n: n(LATENTS, STEP, CONTEXT[..., :40]), r"context has .*\(B, T, 48\)"),
        (UNet2DCondition, UNET, lambda n: n(LATENTS[0], STEP, CONTEXT), r"latents has shape \(8, 8, 4\)"),
        (
            UNet2DCondition,
            UNET,
            lambda n: n(LATENTS, jnp.zeros(3), CONTEXT),
            "time embedding is for 3 examples, but the batch is of 2",
        ),
        (
            UNet2DCondition,
            UNET,
            lambda n: n(LATENTS, STEP, CONTEXT, jnp.zeros((2, 8))),
            r"timestep_cond has shape \(2, 8\), but must be \(B, 16\)",
        ),
        (UNet2DCondition, PLAIN, lambda n: n(LATENTS, STEP, CONTEXT, jnp.zeros((2, 8))), "takes none: it isn't an LCM"),
        (UNet2DCondition, UNET, lambda n: n(LATENTS, STEP, CONTEXT, None, [LATENTS]), "1 down_residuals .* takes 4"),
        (
            UNet2DCondition,
            UNET,
            lambda n: n(LATENTS, "499", CONTEXT),
            "timesteps are of type str, but must be a number",
        ),
        (UNet2DCondition, UNET, lambda n: n(LATENTS, [499], CONTEXT), "timesteps are of type list"),
        (UNet2DCondition, UNET, lambda n: n(LATENTS, STEP[None], CONTEXT), r"timesteps are float32 \(1, 1\)"),
        (UNet2DCondition, UNET, lambda n: n(LATENTS, STEP.astype(complex), CONTEXT), "timesteps are complex"),
        (UNet2DCondition, UNET, lambda n: n(LATENTS, STEP, CONTEXT, 7.5), "timestep_cond is a builtins.float"),
        (UNet2DCondition, UNET, lambda n: n(LATENTS, STEP, jnp.zeros((3, 5, 48))), "context is for 3 examples"),
        (UNet2DCondition, UNET, lambda n: n(LATENTS[:0], STEP, CONTEXT), r"latents has shape \(0, 8, 8, 4\)"),
        (UNet2DCondition, UNET, lambda n: n(LATENTS.astype(int), STEP, CONTEXT), "latents is int32, but must be float"),
        (
            UNet2DCondition,
            UNET,
            lambda n: n(LATENTS, STEP, CONTEXT, None, [LATENTS] * 4),
            r"down_residuals\[0\] has sh",
        ),
        (UNet2DCondition, UNET, lambda n: n(LATENTS, STEP, CONTEXT, None, [None] * 4), r"down_residuals\[0\] is a "),
        (UNet2DCondition, UNET, lambda n: n(LATENTS, STEP, CONTEXT, None, None, LATENTS), "mid_residual has shape"),
        (
            ControlNet,
            CONTROL,
            lambda n: n(LATENTS, STEP, CONTEXT, jnp.zeros((3, 64, 64, 3))),
            "image is for 3 examples",
        ),
        (AutoencoderKL, VAEConfig.miniature(), lambda n: n.encode(IMAGE.astype(jnp.uint8)), "image is uint8"),
        (
            UNet2DCondition,
            UNET,
            lambda n: n(Tensor(), STEP, CONTEXT),
            "latents is .*Tensor, but must",
        ),
        (ControlNet, CONTROL, lambda n: n(LATENTS, STEP, CONTEXT, LATENTS), r"\(B, H, W, 3\)"),
        (
            ControlNet,
            CONTROL,
            lambda n: n(LATENTS, STEP, CONTEXT, IMAGE[:, :32]),
            "be 8 times",
        ),
        (AutoencoderKL, VAEConfig.miniature(), lambda n: n.encode(IMAGE.swapaxes(1, 3)), "image has shape"),
        (AutoencoderKL, VAEConfig.miniature(), lambda n: n.decode(IMAGE), r"latents has .*\(B, H, W, 4\)"),
        (CLIPVision, CLIPVisionConfig.miniature(), lambda n: n(IMAGE), r"must be \(B, 32, 32, 3\)"),
        (VisualEncoder, VisualEncoderConfig.miniature(), lambda n: n(CONTEXT), r"must be \(B, 17, 48\)"),
    ],
)
def test_an_argument_that_does_not_fit_is_named(kind, config, call, message):
    graph, state = nnx.split(abstract(lambda rngs: kind(config, rngs=rngs)))
    with pytest.raises(InterLCMError, match=message):
        jax.eval_shape(lambda state: call(nnx.merge(graph, state)), state)


@pytest.mark.parametrize("step", [499, 499.0, np.float32(499), np.array(499), jnp.array(499), jnp.array([499])])
def test_a_timestep_may_be_a_plain_number(step):
    network = fill_randomly(abstract(lambda rngs: UNet2DCondition(UNET, rngs=rngs)))
    np.testing.assert_array_equal(network.embed_time(step), network.embed_time(STEP))


def test_one_example_for_all_is_taken():
    graph, state = nnx.split(abstract(lambda rngs: UNet2DCondition(UNET, rngs=rngs)))
    mid = jnp.zeros((1, 4, 4, 32))
    eps = jax.eval_shape(
        lambda state: nnx.merge(graph, state)(LATENTS, 499, CONTEXT[:1], jnp.zeros((1, 16)), None, mid), state
    )
    assert eps.shape == LATENTS.shape


@pytest.mark.parametrize("kind", [UNet2DCondition, ControlNet, AutoencoderKL, CLIPVision, VisualEncoder])
def test_a_config_that_is_none(kind):
    with pytest.raises(InterLCMError, match=r"config is a dict, but must be a \w+Config; .*from_json"):
        kind({}, rngs=nnx.Rngs(0))
