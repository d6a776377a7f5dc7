"""Winograd's convolution against XLA's: values, gradients, sizes that don't divide into tiles, and when it is taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from interlcm_jax.models.kernels import winograd
from interlcm_jax.models.layers import Conv
from tests.models.derivatives import DERIVATIVES

# Of outputs of unit scale; XLA's own convolution is off by some 1e-6 in float32.
TOLERANCE = 3e-5


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def problem(batch: int, height: int, width: int, channels: int = 24, out: int = 40) -> tuple[jax.Array, jax.Array]:
    return normal(batch, height, width, channels), normal(3, 3, channels, out, seed=1) / np.sqrt(9 * channels)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (4, 4), (1, 1), (3, 7), (33, 30), (36, 64), (128, 20)])
@pytest.mark.parametrize("chunk", [winograd.CHUNK_TILES, 16])
def test_values(monkeypatch, batch, height, width, chunk):
    monkeypatch.setattr(winograd, "CHUNK_TILES", chunk)
    x, kernel = problem(batch, height, width)
    # A new function is traced anew, with this number of tiles at a time.
    actual = jax.jit(lambda x, kernel: winograd.winograd.__wrapped__(x, kernel))(x, kernel)
    np.testing.assert_allclose(actual, winograd.direct(x, kernel), rtol=0, atol=TOLERANCE)


def test_values_at_a_real_width():
    x, kernel = problem(1, 32, 32, 640, 320)
    np.testing.assert_allclose(winograd.winograd(x, kernel), winograd.direct(x, kernel), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", DERIVATIVES)
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 16, 16), (2, 9, 14)])
def test_derivatives_of_any_order(name, batch, height, width):
    arrays = problem(batch, height, width)
    directions = tuple(normal(*array.shape, seed=2) for array in arrays)

    def derivative(convolve):
        take = DERIVATIVES[name](lambda x, kernel: jnp.sin(convolve(x, kernel)).sum(), directions)
        return jax.tree.leaves(jax.jit(take)(*arrays))

    for actual, expected in zip(derivative(winograd.conv3x3), derivative(winograd.direct), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


@pytest.mark.parametrize("axes", [(0, None), (3, None), (0, 0), (None, 0)])
def test_many_problems_at_once(axes):
    x, kernel = problem(2, 9, 14)
    stacked = [
        each if axis is None else jnp.stack([each, 2 * each, -each], axis)
        for each, axis in zip((x, kernel), axes, strict=True)
    ]

    def gradients(convolve):
        def of_one(x, kernel):
            return jax.value_and_grad(lambda *arrays: jnp.sin(convolve(*arrays)).sum(), (0, 1))(x, kernel)

        return jax.tree.leaves(jax.jit(jax.vmap(of_one, axes))(*stacked))

    for actual, expected in zip(gradients(winograd.conv3x3), gradients(winograd.direct), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """As the layer does."""
    numbers = ("NHWC", "HWIO", "NHWC")
    return winograd.conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=numbers)


@pytest.mark.parametrize("split", [(PartitionSpec("data"), PartitionSpec()), (PartitionSpec(), PartitionSpec("data"))])
def test_in_shard_map_arrays_may_vary_over_different_axes(split):
    x, kernels = normal(2, 32, 32, 128), normal(2, 3, 3, 128, 256, seed=1)
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))

    def gradients(x, kernels):
        def loss(x, kernels):
            mapped = jax.shard_map(
                lambda x, kernels: convolve(x, kernels[0]), mesh=mesh, in_specs=split, out_specs=PartitionSpec("data")
            )
            return jnp.sin(mapped(x, kernels)).sum()

        return jax.grad(loss, (0, 1))(x, kernels)

    shards = [(x, kernels[i]) if split[1] else (x[i : i + 1], kernels[0]) for i in range(2)]
    each = [jax.grad(lambda *a: jnp.sin(winograd.direct(*a)).sum(), (0, 1))(*shard) for shard in shards]
    (x0, k0), (x1, k1) = each
    expected = (x0 + x1, jnp.stack([k0, k1])) if split[1] else (jnp.concatenate([x0, x1]), jnp.stack([k0 + k1, 0 * k0]))
    for ours, theirs in zip(jax.jit(gradients)(x, kernels), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * np.abs(theirs).max())


def test_under_a_mesh_of_explicit_axes():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit,))
    x, kernel = normal(2, 32, 32, 128), normal(3, 3, 128, 256, seed=1) / np.sqrt(9 * 128)
    with jax.set_mesh(mesh):
        places = (NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec()))
        actual = jax.jit(convolve)(*jax.device_put((x, kernel), places))
    np.testing.assert_allclose(actual, winograd.direct(x, kernel), rtol=0, atol=TOLERANCE)


def test_nothing_to_convolve_with_is_copied_whole():
    """Neither the padded input nor more than a chunk of tiles: memory beside the input stays below the output's."""
    x, kernel = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 512, 512, 128), (3, 3, 128, 128)))
    memory = jax.jit(winograd.winograd).lower(x, kernel).compile().memory_analysis()
    assert memory.temp_size_in_bytes < memory.output_size_in_bytes


def test_convolutions_one_after_the_other_share_their_memory():
    def chain(x, kernels):
        for kernel in kernels:
            x = winograd.winograd(x, kernel)
        return x

    def temporaries(count: int) -> int:
        kernels = [jax.ShapeDtypeStruct((3, 3, 256, 256), jnp.float32)] * count
        x = jax.ShapeDtypeStruct((1, 64, 64, 256), jnp.float32)
        return jax.jit(chain).lower(x, kernels).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(6) < 1.5 * temporaries(2)


def convolves_by_winograd(conv: Conv, *shape: int, platforms: tuple[str, ...] = ("cpu",)) -> bool:
    """Whether the program for these platforms has the batch of 36 products in it."""
    graph, state = nnx.split(conv)
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    traced = jax.jit(lambda state, x: nnx.merge(graph, state)(x)).trace(state, x)
    return "tensor<36x" in traced.lower(lowering_platforms=platforms).as_text()


def conv(channels: int, out: int, kernel_size: int = 3, dtype=jnp.float32, **options: int) -> Conv:
    return nnx.eval_shape(
        lambda: Conv(channels, out, kernel_size, **options, dtype=dtype, param_dtype=jnp.float32, rngs=nnx.Rngs(0))
    )


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (conv(320, 320), (1, 64, 64, 320), True),
        (conv(256, 128), (1, 256, 256, 256), True),
        (conv(320, 320), (4, 16, 16, 320), True),  # few tiles an image, enough in all
        (conv(1280, 1280), (1, 8, 8, 1280), False),
        (conv(128, 3), (1, 64, 64, 128), False),
        (conv(128, 128), (1, 512, 512, 128), False),
        (conv(320, 320, stride=2), (1, 64, 64, 320), False),
        (conv(320, 320, padding=0), (1, 64, 64, 320), False),
        (conv(320, 320, 1), (1, 64, 64, 320), False),
        (conv(320, 320, dtype=jnp.bfloat16), (1, 64, 64, 320), False),
    ],
)
def test_is_taken_where_it_is_faster(layer, shape, expected):
    assert convolves_by_winograd(layer, *shape) == expected


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_is_taken_on_cpu_only(platform):
    assert not convolves_by_winograd(conv(320, 320), 1, 64, 64, 320, platforms=(platform,))


def test_one_program_serves_several_platforms():
    assert convolves_by_winograd(conv(320, 320), 1, 64, 64, 320, platforms=("cpu", "tpu"))


def test_layer_adds_its_bias():
    layer = Conv(128, 256, dtype=jnp.float32, param_dtype=jnp.float32, rngs=nnx.Rngs(0))
    layer.bias.set_value(normal(256, seed=3))
    x = normal(1, 32, 32, 128)
    expected = winograd.direct(x, layer.kernel.get_value()) + layer.bias.get_value().reshape(1, 1, 1, -1)
    np.testing.assert_allclose(layer(x), expected, rtol=0, atol=TOLERANCE)
