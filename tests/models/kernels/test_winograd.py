"""Winograd's convolution against XLA's: values, gradients, sizes that don't divide into tiles, and when it is taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from interlcm_jax.models.kernels import winograd
from interlcm_jax.models.layers import Conv

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


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (9, 14)])
def test_gradients(batch, height, width):
    x, kernel = problem(batch, height, width)
    weights = normal(batch, height, width, 40, seed=2)

    def gradients(convolve):
        return jax.jit(jax.grad(lambda x, kernel: (convolve(x, kernel) * weights).sum(), (0, 1)))(x, kernel)

    for actual, expected in zip(gradients(winograd.conv3x3), gradients(winograd.direct), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


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
