"""GroupNorm and LayerNorm against their formulas in float64, where the mean is far larger than the deviation too."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from interlcm_jax.models.layers import GroupNorm, LayerNorm

GROUPS, CHANNELS, EPSILON = 4, 16, 1e-6


def norm(dtype) -> GroupNorm:
    return GroupNorm(CHANNELS, GROUPS, epsilon=EPSILON, dtype=dtype, param_dtype=jnp.float32, rngs=nnx.Rngs(0))


def by_numpy(x: np.ndarray) -> np.ndarray:
    grouped = np.asarray(x, np.float64).reshape(*x.shape[:3], GROUPS, -1)
    centered = grouped - grouped.mean((1, 2, 4), keepdims=True)
    return (centered / np.sqrt(np.square(centered).mean((1, 2, 4), keepdims=True) + EPSILON)).reshape(x.shape)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 2e-4), (jnp.bfloat16, 2e-2), (jnp.float16, 2e-3)])
@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_large_means_do_not_cancel(dtype, tolerance, mean):
    x = jnp.asarray(np.random.default_rng(0).normal(mean, 1.0, (2, 32, 24, CHANNELS)), dtype)
    actual = norm(dtype)(x)
    assert actual.dtype == dtype
    np.testing.assert_allclose(np.asarray(actual, np.float64), by_numpy(x), rtol=0, atol=tolerance)


def test_float32_keeps_its_digits_at_a_mean_of_thousands():
    x = jnp.asarray(np.random.default_rng(0).normal(3000.0, 1.0, (2, 32, 24, CHANNELS)), jnp.float32)
    np.testing.assert_allclose(np.asarray(norm(jnp.float32)(x)), by_numpy(x), rtol=0, atol=2e-3)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("value", [0.0, 10000.0, -3.3])
def test_a_constant_map_gives_the_bias(dtype, value):
    x = jnp.full((1, 31, 29, CHANNELS), value, dtype)
    np.testing.assert_allclose(np.asarray(norm(dtype)(x), np.float32), 0.0, rtol=0, atol=0.1)


def layer_norm(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ours of `x` in its dtype, and the formula's in float64."""
    norm = LayerNorm(CHANNELS, epsilon=EPSILON, dtype=x.dtype, param_dtype=jnp.float32, rngs=nnx.Rngs(0))
    exact = np.asarray(x, np.float64)
    centered = exact - exact.mean(-1, keepdims=True)
    actual = norm(x)
    assert actual.dtype == x.dtype
    return np.asarray(actual, np.float64), centered / np.sqrt(np.square(centered).mean(-1, keepdims=True) + EPSILON)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 2e-4), (jnp.bfloat16, 2e-2), (jnp.float16, 2e-3)])
@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_layer_norm_of_large_means(dtype, tolerance, mean):
    x = jnp.asarray(np.random.default_rng(0).normal(mean, 1.0, (2, 100, CHANNELS)), dtype)
    actual, expected = layer_norm(x)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


def test_layer_norm_in_float32_keeps_its_digits_at_a_mean_of_thousands():
    x = jnp.asarray(np.random.default_rng(0).normal(3000.0, 1.0, (2, 100, CHANNELS)), jnp.float32)
    actual, expected = layer_norm(x)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-3)
