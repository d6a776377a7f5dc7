"""Means over pixels by blocks equal those taken at once, in value and derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interlcm_jax.models.kernels.reductions import BLOCK, FROM_PIXELS, mean_over_pixels
from tests.models.jaxprs import equations


@pytest.mark.parametrize("shape", [(2, 64, 64, 12), (1, FROM_PIXELS, 8), (1, 72, 96, 4), (1, 65, 65, 4), (2, 8, 8, 4)])
def test_it_is_the_mean(shape):
    x = np.random.default_rng(0).normal(3, 1, shape).astype(np.float32)
    expected = x.astype(np.float64).mean(tuple(range(1, len(shape) - 1)), keepdims=True)
    found = jax.jit(mean_over_pixels)(x)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_large_images_are_summed_by_blocks():
    def chosen(side: int) -> bool:
        jaxpr = jax.make_jaxpr(mean_over_pixels)(jax.ShapeDtypeStruct((1, side, side, 4), jnp.float32))
        return "platform_index" in {equation.primitive.name for equation in equations(jaxpr.jaxpr)}

    assert [chosen(side) for side in (64, 65, 8)] == [True, False, False]


def test_derivatives():
    shape = (2, FROM_PIXELS // BLOCK, BLOCK, 3)
    x, tangent = (np.random.default_rng(i).normal(0, 1, shape).astype(np.float32) for i in range(2))

    def variance(x):
        return jnp.square(x - mean_over_pixels(x)).mean((1, 2)).sum()

    by_channel = (x - x.mean((1, 2), keepdims=True)) * 2 / FROM_PIXELS
    np.testing.assert_allclose(jax.jit(jax.grad(variance))(x), by_channel, atol=1e-8)
    _, forward = jax.jvp(jax.jit(variance), (x,), (tangent,))
    np.testing.assert_allclose(forward, (by_channel * tangent).sum(), rtol=1e-4)
    curved = jax.jit(lambda x, v: jax.jvp(jax.grad(variance), (x,), (v,))[1])(x, tangent)
    np.testing.assert_allclose(curved, (tangent - tangent.mean((1, 2), keepdims=True)) * 2 / FROM_PIXELS, atol=1e-8)
