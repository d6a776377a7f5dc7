"""The VAE by itself: sizes, config files, rematerialization, bfloat16."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from interlcm_jax.errors import InterLCMError
from interlcm_jax.models.vae import AutoencoderKL, VAEConfig
from interlcm_jax.models.weights import skeleton
from tests.models.jaxprs import equations, recomputations
from tests.models.random_weights import random_network

CONFIG = VAEConfig.miniature()
SHALLOW = dataclasses.replace(CONFIG, block_out_channels=(8, 16))  # has blocks of every kind, compiles sooner
SD15_CONFIG = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}

round_trip = nnx.jit(lambda vae, image: vae.decode(vae.encode(image)[0]))


@pytest.fixture(scope="module")
def image() -> jax.Array:
    return jax.random.uniform(jax.random.key(0), (2, 8, 16, 3), minval=-1.0, maxval=1.0)


def build(config: VAEConfig = CONFIG, **options: object) -> AutoencoderKL:
    return random_network(AutoencoderKL, config, **options)


def test_real_size():
    vae = nnx.eval_shape(lambda: AutoencoderKL(VAEConfig(), rngs=nnx.Rngs(0)))
    assert sum(math.prod(spec.shape) for spec in skeleton(vae).values()) == 83_653_863
    mean, logvar = nnx.eval_shape(lambda m, x: m.encode(x), vae, jax.ShapeDtypeStruct((2, 512, 512, 3), jnp.float32))
    assert mean.shape == logvar.shape == (2, 64, 64, 4)
    assert nnx.eval_shape(lambda m, x: m.decode(x), vae, mean).shape == (2, 512, 512, 3)


def test_reads_the_published_config():
    assert VAEConfig.from_json(SD15_CONFIG) == VAEConfig()
    assert VAEConfig().scaling_factor == 0.18215
    assert VAEConfig.from_json(CONFIG.to_json()) == CONFIG


def test_a_decoder_of_its_own_widths():
    config = dataclasses.replace(CONFIG, decoder_block_out_channels=(4, 8, 16, 20))
    assert VAEConfig.from_json(config.to_json()) == config
    assert "decoder_block_out_channels" not in CONFIG.to_json()  # no published file has it
    specs, mirror = (skeleton(nnx.eval_shape(lambda c=c: AutoencoderKL(c, rngs=nnx.Rngs(0)))) for c in (config, CONFIG))
    assert specs["decoder.conv_in.kernel"].shape == (3, 3, 4, 20)
    assert specs["decoder.conv_out.kernel"].shape == (3, 3, 4, 3)
    changed = {path for path in mirror if specs.get(path) != mirror[path]}
    assert changed
    assert all(path.startswith("decoder.") for path in changed)


def test_a_decoder_with_another_number_of_levels_is_refused():
    with pytest.raises(InterLCMError, match=r"decoder_block_out_channels=\(8, 16\) must have as many levels"):
        dataclasses.replace(CONFIG, decoder_block_out_channels=(8, 16))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("_class_name", "AutoencoderTiny"),
        ("act_fn", "relu"),
        ("down_block_types", ["DownEncoderBlock2D"] * 3 + ["AttnDownEncoderBlock2D"]),
        ("mid_block_add_attention", False),
        ("shift_factor", 0.1),
        ("up_block_types", ["UpDecoderBlock2D"] * 3),
        ("use_quant_conv", False),
    ],
)
def test_refuses_what_it_does_not_implement(key, value):
    with pytest.raises(InterLCMError, match=key):
        VAEConfig.from_json({**SD15_CONFIG, key: value})


def test_remat_recomputes_every_block_and_changes_no_gradient(image):
    def loss(vae, image):
        mean, logvar = vae.encode(image)
        return jnp.sum(jnp.sin(logvar)) + jnp.sum(jnp.sin(vae.decode(mean)))

    kept, recomputed = build(SHALLOW, remat=False), build(SHALLOW, remat=True)
    jaxprs = [jax.make_jaxpr(loss, static_argnums=0)(vae, image).jaxpr for vae in (kept, recomputed)]
    counts = [recomputations(jaxpr) for jaxpr in jaxprs]
    # The upsampling has one of its own, around the choice of its form.
    assert counts == [1, (2 + 3) + (4 + 3) + 1]
    gradient = nnx.jit(nnx.grad(loss, argnums=(0, 1)))
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-4)
    jax.tree.map(compare, gradient(kept, image), gradient(recomputed, image))


def test_bfloat16_stays_close_to_float32(image):
    exact, half = build(SHALLOW), build(SHALLOW, dtype=jnp.bfloat16)
    expected, actual = round_trip(exact, image), round_trip(half, image)
    assert actual.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(nnx.state(half, nnx.Param)))
    assert 0.002 < jnp.std(actual.astype(jnp.float32) - expected) / jnp.std(expected) < 0.03


def test_bfloat16_keeps_norms_and_softmax_in_float32(image):
    half = build(dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    jaxpr = jax.make_jaxpr(lambda x: half.decode(half.encode(x)[0]))(image).jaxpr
    seen = {}
    for equation in equations(jaxpr):
        if equation.invars:
            seen.setdefault(equation.primitive.name, []).append(equation.invars[0].aval.dtype)
    assert len(seen["rsqrt"]) == 2 * 4 * (1 + 2) + 2 * (2 * 2 + 1 + 1)
    assert len(seen["exp"]) == 2
    assert set(seen["rsqrt"] + seen["exp"] + seen["reduce_sum"]) == {jnp.dtype(jnp.float32)}
    assert set(seen["conv_general_dilated"]) == {jnp.dtype(jnp.bfloat16)}
