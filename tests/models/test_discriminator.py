"""The discriminator by itself: sizes, state, dtypes, data parallelism."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from interlcm_jax.models.discriminator import BatchNorm, DiscriminatorConfig, PatchDiscriminator
from tests.models.random_weights import random_network

CONFIG = DiscriminatorConfig.miniature()

score = nnx.jit(lambda discriminator, image, train: discriminator(image, train), static_argnums=2)


@pytest.fixture(scope="module")
def images() -> jax.Array:
    return jax.random.uniform(jax.random.key(0), (8, 16, 16, 3), minval=-1.0, maxval=1.0)


def build(**options: object) -> PatchDiscriminator:
    return random_network(PatchDiscriminator, CONFIG, **options)


def statistics(discriminator: PatchDiscriminator) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(discriminator, nnx.BatchStat))]


def test_real_size():
    discriminator = nnx.eval_shape(lambda: PatchDiscriminator(DiscriminatorConfig(), rngs=nnx.Rngs(0)))
    parameters = jax.tree.leaves(nnx.state(discriminator, nnx.Param))
    assert sum(math.prod(leaf.shape) for leaf in parameters) == 6_960_961
    image = jax.ShapeDtypeStruct((2, 512, 512, 3), jnp.float32)
    logits = nnx.eval_shape(lambda m, x: m(x, train=False), discriminator, image)
    assert logits.shape == (2, 30, 30, 1)


def test_config_round_trip():
    assert DiscriminatorConfig.from_json(CONFIG.to_json()) == CONFIG


def test_only_training_moves_the_statistics(images):
    discriminator = build()
    before = statistics(discriminator)
    score(discriminator, images, False)
    jax.tree.map(np.testing.assert_array_equal, statistics(discriminator), before)
    score(discriminator, images, True)
    assert all(np.all(a != b) for a, b in zip(statistics(discriminator), before, strict=True))


def test_statistics_are_those_of_the_global_batch(images):
    """Eight devices with one image each give what one device with eight images gives."""
    alone, sharded = build(), build()
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    expected = score(alone, images, True)
    actual = score(sharded, jax.device_put(images, NamedSharding(mesh, PartitionSpec("data"))), True)
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), statistics(sharded), statistics(alone))


def test_bfloat16_keeps_statistics_in_float32(images):
    exact, half = build(), build(dtype=jnp.bfloat16)
    expected, actual = score(exact, images, True), score(half, images, True)
    assert actual.dtype == jnp.bfloat16
    stored_half = build(dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    assert all(leaf.dtype == jnp.float32 for each in (half, stored_half) for leaf in statistics(each))
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(nnx.state(stored_half, nnx.Param)))
    assert 0.001 < jnp.std(actual.astype(jnp.float32) - expected) / jnp.std(expected) < 0.03


def test_variance_far_from_zero():
    """At a mean of 1000 the difference of the mean square and the squared mean has no correct digit left."""
    norm = BatchNorm(4, dtype=jnp.float32, param_dtype=jnp.float32, rngs=nnx.Rngs(0))
    x = 1000 + jax.random.normal(jax.random.key(0), (4, 8, 8, 4))
    assert jnp.std(norm(x, True)) == pytest.approx(1, abs=1e-4)


def test_training_on_one_value_a_channel_raises():
    norm = BatchNorm(4, dtype=jnp.float32, param_dtype=jnp.float32, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="more than one value"):
        norm(jnp.zeros((1, 1, 1, 4)), True)
