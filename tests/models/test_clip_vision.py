import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from interlcm_jax.errors import InterLCMError
from interlcm_jax.models.clip_vision import CLIPVision, CLIPVisionConfig, quick_gelu
from interlcm_jax.models.weights import skeleton
from tests.models.random_weights import random_network

MINIATURE = CLIPVisionConfig.miniature()
PIXELS = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))


apply = nnx.jit(lambda network, x: network(x))


def count(network):
    return sum(int(np.prod(spec.shape)) for spec in skeleton(network).values())


def build(**options):
    return random_network(CLIPVision, MINIATURE, **options)


def test_exact_parameter_count_of_vit_b_16():
    network = nnx.eval_shape(lambda: CLIPVision(CLIPVisionConfig.vit_b_16(), rngs=nnx.Rngs(0)))
    assert count(network) == 85_799_424
    # The 86.2 M of the paper's table count the projection too, which InterLCM leaves out.
    assert count(network) + 768 * 512 == 86_192_640


def test_tokens_of_vit_b_16():
    def forward():
        return CLIPVision(CLIPVisionConfig.vit_b_16(), rngs=nnx.Rngs(0))(jnp.zeros((2, 224, 224, 3)))

    assert jax.eval_shape(forward).shape == (2, 197, 768)


def test_bfloat16_stays_near_float32():
    exact, rounded = (apply(build(dtype=dtype), PIXELS) for dtype in (jnp.float32, jnp.bfloat16))
    assert rounded.dtype == jnp.bfloat16
    drift = np.abs(np.asarray(rounded, np.float32) - np.asarray(exact))
    assert 0 < drift.max() < 0.1
    assert drift.mean() < 0.01


def test_quick_gelu_is_not_gelu():
    x = jnp.linspace(-4, 4, 33)
    np.testing.assert_allclose(quick_gelu(x), x / (1 + np.exp(-1.702 * x)), atol=1e-6)
    assert np.abs(quick_gelu(x) - jax.nn.gelu(x, approximate=False)).max() > 0.02


@pytest.mark.parametrize("remat", [False, True])
def test_remat_recomputes_in_the_backward_pass(remat):
    network = build(remat=remat)
    gradient = jax.make_jaxpr(jax.grad(lambda x: jnp.sum(network(x))))(PIXELS)
    assert ("remat" in str(gradient)) == remat


def test_config_survives_its_own_file():
    assert CLIPVisionConfig.from_json(MINIATURE.to_json()) == MINIATURE


def test_settings_of_early_files_that_stand_twice():
    published = {"model_type": "clip", "vision_config": {"patch_size": 16}, "vision_config_dict": {"patch_size": 14}}
    assert CLIPVisionConfig.from_json(published).patch_size == 14


@pytest.mark.parametrize(
    ("published", "message"),
    [
        ({"model_type": "clip", "vision_config": {"hidden_act": "gelu"}}, "hidden_act='gelu'"),
        ({"model_type": "siglip_vision_model"}, "model_type='siglip_vision_model'"),
        ({"model_type": "clip_vision_model", "num_channels": 1}, "num_channels=1"),
    ],
)
def test_other_networks_are_refused(published, message):
    with pytest.raises(InterLCMError, match=message):
        CLIPVisionConfig.from_json(published)
