"""The VAE's upsampling: both of its forms are the same function, and a TPU gets the one without the doubled map."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from interlcm_jax.models.vae_blocks import Upsample, upsample_then_conv, upsample_within_conv
from tests.models.random_weights import random_network

CHANNELS = 5
ROUNDING = 2e-6  # float32, outputs near 1; merging the kernels changes the order of the sums


def upsample(dtype=jnp.float32) -> Upsample:
    return random_network(Upsample, CHANNELS, dtype=dtype, param_dtype=dtype)


def image(*shape: int, dtype=jnp.float32) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).standard_normal((*shape, CHANNELS)), dtype)


@pytest.mark.parametrize("shape", [(2, 6, 9), (1, 1, 1), (1, 8, 2)])
def test_merged_into_the_convolution_it_is_the_same(shape):
    conv, x = upsample().conv, image(*shape)
    merged = upsample_within_conv(conv, x)
    assert merged.shape == (shape[0], 2 * shape[1], 2 * shape[2], CHANNELS)
    np.testing.assert_allclose(merged, upsample_then_conv(conv, x), rtol=0, atol=ROUNDING)


def test_so_are_the_gradients_of_weights_and_input():
    graph, weights = nnx.split(upsample().conv)

    def gradients(form):
        return jax.grad(lambda w, x: jnp.sin(form(nnx.merge(graph, w), x)).sum(), argnums=(0, 1))(
            weights, image(2, 4, 3)
        )

    pairs = zip(*(jax.tree.leaves(gradients(form)) for form in (upsample_within_conv, upsample_then_conv)), strict=True)
    for merged, plain in pairs:
        # The bias' gradients are sums of about 70, where float32 has steps of 8e-6: orders of summing differ by two.
        np.testing.assert_allclose(merged, plain, rtol=5e-7, atol=1e-5)


def test_in_half_precision_too():
    conv, x = upsample(jnp.bfloat16).conv, image(2, 6, 9, dtype=jnp.bfloat16)
    merged = upsample_within_conv(conv, x)
    assert merged.dtype == jnp.bfloat16
    reference = upsample().conv
    for name in ("kernel", "bias"):
        getattr(reference, name).set_value(getattr(conv, name).get_value().astype(jnp.float32))
    exact = upsample_then_conv(reference, x.astype(jnp.float32))
    assert np.abs(np.asarray(merged, np.float32) - exact).max() < 3e-2


@pytest.mark.parametrize(("platform", "merged"), [("tpu", True), ("cpu", False), ("cuda", False)])
def test_a_tpu_gets_the_merged_one(platform, merged):
    module, x = upsample(), image(1, 4, 4)
    text = jax.jit(lambda x: module(x)).trace(x).lower(lowering_platforms=(platform,)).as_text()
    assert ("lhs_dilate = [2, 2]" in text) == merged
    assert (f"4x4x{CHANNELS}x{CHANNELS}" in text) == merged


def test_the_backward_pass_keeps_no_doubled_map():
    x = image(1, 8, 8)
    kept = jax.eval_shape(lambda conv, x: jax.vjp(lambda conv, x: conv(x), conv, x)[1], upsample(), x)
    assert max(leaf.size for leaf in jax.tree.leaves(kept)) <= x.size
