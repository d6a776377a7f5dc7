import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from interlcm_jax.errors import InterLCMError
from interlcm_jax.models.visual_encoder import VisualEncoder, VisualEncoderConfig
from interlcm_jax.models.weights import skeleton
from tests.models.random_weights import random_network

MINIATURE = VisualEncoderConfig.miniature()
TOKENS = jax.random.normal(jax.random.key(1), (2, 17, 48))


apply = nnx.jit(lambda network, x: network(x))


def build(**options):
    return random_network(VisualEncoder, MINIATURE, **options)


def test_exact_parameter_count_of_the_release():
    network = nnx.eval_shape(lambda: VisualEncoder(VisualEncoderConfig(), rngs=nnx.Rngs(0)))
    assert sum(int(np.prod(spec.shape)) for spec in skeleton(network).values()) == 12_960_845


def test_context_of_the_release():
    def forward():
        return VisualEncoder(VisualEncoderConfig(), rngs=nnx.Rngs(0))(jnp.zeros((2, 197, 768)))

    assert jax.eval_shape(forward).shape == (2, 77, 768)


def test_blocks_of_the_release():
    kinds = [block.kind for block in VisualEncoderConfig().blocks()]
    assert " ".join(kinds) == ("conv resize res attn res res attn res attn resize res res resize res res norm conv")


def test_bfloat16_stays_near_float32():
    exact, rounded = (apply(build(dtype=dtype), TOKENS) for dtype in (jnp.float32, jnp.bfloat16))
    assert rounded.dtype == jnp.bfloat16
    drift = np.abs(np.asarray(rounded, np.float32) - np.asarray(exact))
    assert 0 < drift.max() < 0.1
    assert drift.mean() < 0.02


@pytest.mark.parametrize("remat", [False, True])
def test_remat_recomputes_in_the_backward_pass(remat):
    network = build(remat=remat)
    gradient = jax.make_jaxpr(jax.grad(lambda x: jnp.sum(network(x))))(TOKENS)
    assert ("remat" in str(gradient)) == remat


def test_config_survives_its_own_file():
    assert VisualEncoderConfig.from_json(MINIATURE.to_json()) == MINIATURE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": 50}, "features 50"),
        ({"block_out_channels": (16, 32)}, "2 levels"),
        ({"attention": (True,)}, "1 levels of 3"),
        ({"norm_num_groups": 16}, "block_out_channels has 24, which norm_num_groups=16 doesn't divide"),
    ],
)
def test_contradicting_sizes_are_refused(change, message):
    with pytest.raises(InterLCMError, match=message):
        dataclasses.replace(MINIATURE, **change)
