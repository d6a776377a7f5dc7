"""Every implementation of attention against the plain one, and which one a platform gets.

cuDNN's kernel runs on a GPU only, so of it just the decision is tested here; Pallas' runs in its interpreter.
"""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import NamedSharding, PartitionSpec

from interlcm_jax.models.kernels import attention
from interlcm_jax.models.kernels.attention import (
    chunked_attention,
    cudnn_attention,
    dot_product_attention,
    flash_attention,
    plain_attention,
)
from tests.models.derivatives import DERIVATIVES

ROUNDING = 2e-6
SELF, CROSS = (1, 1024, 1024, 2, 8), (1, 4096, 77, 8, 40)  # B, Tq, Tk, N, K


def normal(shape: tuple[int, ...], dtype: jax.typing.DTypeLike = jnp.float32) -> tuple[jax.Array, ...]:
    batch, queries, keys, heads, width = shape
    generator = np.random.default_rng(0)
    shapes = [(batch, tokens, heads, width) for tokens in (queries, keys, keys)]
    return tuple(jnp.asarray(generator.standard_normal(s), dtype) for s in shapes)


def specs(shape: tuple[int, ...], dtype: jax.typing.DTypeLike = jnp.float32) -> tuple[jax.ShapeDtypeStruct, ...]:
    return jax.eval_shape(lambda: normal(shape, dtype))


def by_numpy(query: jax.Array, key: jax.Array, value: jax.Array) -> np.ndarray:
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    scores = np.einsum("bqnk,btnk->bnqt", query, key) / query.shape[-1] ** 0.5
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bnqt,btnk->bqnk", weights / weights.sum(-1, keepdims=True), value)


@functools.partial(jax.jit, static_argnums=0)
def output_and_gradients(attend, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    out, pull = jax.vjp(attend, *arrays)
    return out, *pull(jnp.cos(3 * out).astype(out.dtype))


def assert_same(actual, expected, tolerance: float = ROUNDING) -> None:
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.shape == theirs.shape
        scale = np.abs(np.asarray(theirs, np.float32)).max()
        np.testing.assert_allclose(np.asarray(ours, np.float32) / scale, theirs / scale, rtol=0, atol=tolerance)


@pytest.mark.parametrize("shape", [(3, 40, 24, 2, 8), (1, 33, 77, 2, 40), (2, 16, 16, 1, 128)])
def test_plain(shape):
    arrays = normal(shape)
    assert_same([plain_attention(*arrays)], [by_numpy(*arrays)])


@pytest.mark.parametrize(
    ("shape", "limit"),
    [
        pytest.param((2, 48, 32, 4, 8), 48 * 32 * 2, id="two heads at a time"),
        pytest.param((2, 48, 32, 3, 8), 48 * 32 * 2, id="two heads, then one"),
        pytest.param((2, 48, 32, 2, 40), 32 * 16, id="16 queries at a time"),
        pytest.param((2, 48, 32, 2, 64), 32 * 20, id="20 queries, 20, then 8"),
        pytest.param((1, 7, 32, 1, 512), 1, id="one query at a time"),
        pytest.param((1, 7, 32, 1, 128), 2**20, id="all at once"),
    ],
)
def test_chunked(shape, limit, monkeypatch):
    monkeypatch.setattr(attention, "CHUNK_ABOVE_SCORES", limit)
    arrays = normal(shape)
    actual = output_and_gradients(lambda *arrays: chunked_attention(*arrays), *arrays)
    assert_same(actual, output_and_gradients(plain_attention, *arrays))


@pytest.mark.parametrize("limit", [32 * 4, 48 * 32, 2 * 48 * 32])
def test_chunked_never_holds_more_scores_than_asked(limit):
    jaxpr = jax.make_jaxpr(functools.partial(chunked_attention, chunk_scores=limit))(*specs((3, 48, 32, 4, 8)))
    assert max(e.outvars[0].aval.size for e in _equations(jaxpr.jaxpr) if e.primitive.name == "exp") == 3 * limit


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


@pytest.mark.parametrize(
    "shape", [(2, 256, 128, 2, 8), (1, 128, 384, 1, 40), (1, 256, 256, 1, 64), (1, 256, 512, 1, 512)]
)
def test_flash(shape):
    arrays = normal(shape)
    with pltpu.force_tpu_interpret_mode():
        actual = output_and_gradients(flash_attention, *arrays)
    assert_same(actual, output_and_gradients(plain_attention, *arrays))


@pytest.mark.parametrize(
    ("limit", "keys"), [(1000, 77), (10**6, 77), pytest.param(1000, 2 * attention.LANES, id="the largest by lanes")]
)
def test_the_choice_equals_plain(limit, keys, monkeypatch):
    monkeypatch.setattr(attention, "CHUNK_ABOVE_SCORES", limit)
    arrays = normal((2, 48, keys, 2, 40))
    actual = output_and_gradients(lambda *arrays: dot_product_attention(*arrays), *arrays)
    assert_same(actual, output_and_gradients(plain_attention, *arrays))


@pytest.mark.parametrize("keys", [77, 2 * attention.LANES])
def test_no_score_is_too_large(keys, monkeypatch):
    monkeypatch.setattr(attention, "CHUNK_ABOVE_SCORES", 1000)
    query, key, value = normal((1, 48, keys, 2, 8))
    actual = jax.jit(dot_product_attention)(query * 1e3, key, value)
    assert_same([actual], [by_numpy(query * 1e3, key, value)], 1e-4)


@pytest.mark.parametrize("attend", [plain_attention, functools.partial(chunked_attention, chunk_scores=500)])
def test_half_precision_keeps_the_softmax_in_float32(attend):
    arrays = normal((2, 48, 77, 2, 40))
    actual = attend(*(x.astype(jnp.bfloat16) for x in arrays))
    assert actual.dtype == jnp.bfloat16
    error = np.asarray(actual, np.float32) - plain_attention(*arrays)
    assert 1e-4 < np.abs(error).max() < 2e-2
    jaxpr = jax.make_jaxpr(attend)(*specs((2, 48, 77, 2, 40), jnp.bfloat16)).jaxpr
    exps = [e.invars[0].aval.dtype for e in _equations(jaxpr) if e.primitive.name == "exp"]
    assert exps
    assert set(exps) == {jnp.dtype(jnp.float32)}


def test_only_the_inputs_are_kept_for_the_backward_pass():
    arrays = specs(SELF)
    kept = jax.eval_shape(lambda *arrays: jax.vjp(dot_product_attention, *arrays)[1], *arrays)
    assert sum(x.size for x in jax.tree.leaves(kept)) <= sum(x.size for x in arrays)


def lowered(shape: tuple[int, ...], *platforms: str, attend=None) -> str:
    attend = attend or (lambda *arrays: dot_product_attention(*arrays))
    with attention.flash_kernel(True):
        return jax.jit(attend).trace(*specs(shape)).lower(lowering_platforms=platforms).as_text()


def test_a_second_call_is_not_traced_again():
    """In a process of its own: what JAX imports while it traces the first program changes its context for the next."""
    program = """
import jax, jax.numpy as jnp
from interlcm_jax.models.kernels.attention import dot_product_attention
traces = []
@jax.jit
def attend(x):
    traces.append(x)
    return dot_product_attention(x, x, x)
attend(attend(jnp.ones((1, 1024, 1, 8))))
print(len(traces))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_a_tpu_gets_the_flash_kernel_for_self_attention():
    assert lowered(SELF, "tpu").count("@tpu_custom_call") == 1


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(CROSS, id="77 keys"),
        pytest.param((1, 1100, 1024, 2, 8), id="ragged tokens"),
        pytest.param((1, 512, 512, 8, 8), id="few tokens"),
        pytest.param((1, 1024, 1024, 2, 160), id="head width 160"),
    ],
)
def test_a_tpu_gets_no_kernel_for_what_it_does_not_take(shape):
    assert "custom_call" not in lowered(shape, "tpu")


def test_a_tpu_gets_the_kernel_in_the_backward_pass_too():
    gradient = jax.grad(lambda *arrays: dot_product_attention(*arrays).sum(), argnums=(0, 1, 2))
    assert lowered(SELF, "tpu", attend=gradient).count("@tpu_custom_call") == 3


def test_other_platforms_get_no_custom_call():
    assert "custom_call" not in lowered(SELF, "cpu")
    assert "custom_call" not in lowered(SELF, "cuda")


def test_cpu_goes_by_chunks_and_others_in_one_pass():
    assert "stablehlo.while" in lowered((1, 1024, 1024, 2, 8), "cpu")
    assert "stablehlo.while" not in lowered(CROSS, "tpu", "cuda")
    assert "stablehlo.while" in lowered((1, 10000, 10000, 2, 8), "cuda")


def test_on_several_cores_the_kernel_splits_the_batch_over_the_mesh():
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "fsdp"))
    split = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))

    def text(batch: int, sharding: NamedSharding | None) -> str:
        arrays = (jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding) for s in specs((batch, *SELF[1:])))
        with jax.set_mesh(mesh), attention.flash_kernel(True):
            traced = jax.jit(lambda *arrays: dot_product_attention(*arrays)).trace(*arrays)
            return traced.lower(lowering_platforms=("tpu",)).as_text()

    kernel = next(line for line in text(16, split).splitlines() if "@tpu_custom_call" in line)
    assert "tensor<2x2x1024x8xf32>" in kernel
    assert "@tpu_custom_call" not in text(12, None)  # twelve examples don't split over eight devices


@pytest.mark.parametrize("wanted", [None, False])
def test_export_for_several_platforms_leaves_the_kernel_out(wanted):
    with attention.flash_kernel(wanted):
        program = jax.jit(lambda *arrays: dot_product_attention(*arrays))
        exported = jax.export.export(program, platforms=["cpu", "tpu"])(*specs(SELF))
    arrays = normal(SELF)
    assert_same([exported.call(*arrays)], [plain_attention(*arrays)])


@pytest.mark.parametrize(("backend", "wanted", "kernel"), [("tpu", None, 1), ("tpu", False, 0), ("gpu", None, 0)])
def test_the_kernel_is_there_where_a_tpu_is(backend, wanted, kernel, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    with attention.flash_kernel(wanted):
        traced = jax.jit(lambda *arrays: dot_product_attention(*arrays)).trace(*specs(SELF))
    assert traced.lower(lowering_platforms=("tpu",)).as_text().count("@tpu_custom_call") == kernel


def derivative(name: str, attend, arrays: tuple[jax.Array, ...]) -> list[jax.Array]:
    directions = tuple(jnp.cos(array) for array in arrays)
    take = DERIVATIVES[name](lambda *arrays: jnp.sin(3 * attend(*arrays)).sum(), directions)
    return jax.tree.leaves(jax.jit(take)(*arrays))


@pytest.mark.parametrize("name", DERIVATIVES)
def test_derivatives_of_any_order(name, monkeypatch):
    monkeypatch.setattr(attention, "CHUNK_ABOVE_SCORES", 48 * 32)
    arrays = normal((1, 48, 32, 2, 8))
    actual = derivative(name, lambda *arrays: dot_product_attention(*arrays), arrays)
    assert_same(actual, derivative(name, plain_attention, arrays), 10 * ROUNDING)


@pytest.mark.parametrize("name", DERIVATIVES)
def test_no_kernel_is_in_the_way_of_derivatives(name):
    """At the size from which a TPU has one: a CPU's programs must do without, and a TPU's where they are told so."""
    for wanted in (None, False):
        with attention.flash_kernel(wanted):
            jax.eval_shape(
                functools.partial(derivative, name, lambda *arrays: dot_product_attention(*arrays)), specs(SELF)
            )


@pytest.mark.parametrize("checked", [True, False])
def test_in_shard_map(checked):
    """Where JAX checks which axes arrays vary over, Pallas' kernel doesn't say, and isn't taken."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("data",))
    split = PartitionSpec("data")
    arrays = normal((2, *SELF[1:]))
    attend = jax.jit(
        jax.shard_map(dot_product_attention, mesh=mesh, in_specs=split, out_specs=split, check_vma=checked)
    )
    assert_same([attend(*arrays)], [plain_attention(*arrays)])
    with attention.flash_kernel(True):
        text = attend.trace(*arrays).lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("@tpu_custom_call") == (not checked)


@pytest.mark.parametrize(
    ("backend", "dtype", "width", "fits"),
    [
        ("gpu", jnp.bfloat16, 40, True),
        ("gpu", jnp.float16, 128, True),
        ("gpu", jnp.float32, 40, False),
        ("gpu", jnp.bfloat16, 12, False),
        ("gpu", jnp.bfloat16, 160, False),
        ("cpu", jnp.bfloat16, 40, False),
    ],
)
def test_cudnn_is_chosen_where_it_fits(backend, dtype, width, fits, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    chosen = []
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *arrays, **branches: chosen.append(branches) or arrays[0])
    jax.eval_shape(lambda *arrays: dot_product_attention(*arrays), *specs((1, 1024, 1024, 2, width), dtype))
    assert (chosen[0].get("cuda") is cudnn_attention) == fits
