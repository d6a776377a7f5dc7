"""What is read from optimized HLO, on programs of known numbers."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.tpu.hlo import collective_bytes, hbm_bytes, megacycles

# As the TPU's compiler writes them: a weight of 1280 x 1280 bfloat16 comes into fast memory, half by a copy ahead and
# half in a slice; there it is multiplied with what the program was given, in HBM.
COPIES = """HloModule jit_f, is_scheduled=true

%fused (a: bf16[8,1280]) -> bf16[8,1280] {
  ROOT %neg = bf16[8,1280]{1,0} negate(%a), backend_config={"estimated_cycles":"5000000"}
}

ENTRY %main.9 (w.1: bf16[640,1280], v.1: bf16[1280,1280], x.1: f32[8,1280]) -> (f32[8,1280]) {
  %w.1 = bf16[640,1280]{1,0:T(8,128)(2,1)} parameter(0)
  %v.1 = bf16[1280,1280]{1,0:T(8,128)(2,1)} parameter(1)
  %x.1 = f32[8,1280]{1,0:T(8,128)} parameter(2)
  %copy-start = (bf16[640,1280]{1,0:T(8,128)(2,1)S(1)}, bf16[640,1280]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}) copy-start(%w.1), backend_config={"dma_priority":1}
  %slice-start.1 = ((bf16[1280,1280]{1,0:T(8,128)(2,1)}), bf16[320,1280]{1,0:T(8,128)(2,1)S(1)}, s32[]{:S(2)}) slice-start(%v.1), slice={[0:320], [0:1280]}
  %copy-done = bf16[640,1280]{1,0:T(8,128)(2,1)S(1)} copy-done(%copy-start)
  %slice-done.1 = bf16[320,1280]{1,0:T(8,128)(2,1)S(1)} slice-done(%slice-start.1)
  %fusion.1 = bf16[8,1280]{1,0:T(8,128)(2,1)S(1)} fusion(%x.1, %copy-done, %slice-done.1), kind=kOutput, calls=%fused, backend_config={"estimated_cycles":"1500000"}
  %fusion.2 = f32[8,1280]{1,0:T(8,128)} fusion(%fusion.1), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"250000"}
  ROOT %tuple = (f32[8,1280]{1,0:T(8,128)}) tuple(%fusion.2)
}
"""  # noqa: E501
# Layouts with tiles, an unmarked trip count, asynchronous pairs, a tuple summed at once.
COLLECTIVES = """HloModule step, entry_computation_layout={()->f32[]}

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[]{:T(128)} add(%a, %b)
}

%condition (p: (s32[], f32[64])) -> pred[] {
  %three = s32[]{:T(128)} constant(3)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %three), direction=LT
}

%body (p: (s32[], f32[64])) -> (s32[], f32[64]) {
  %x = f32[64]{0:T(256)S(1)} get-tuple-element(%p), index=1
  %scattered = f32[16]{0:T(256)} reduce-scatter(%x), dimensions={0}, to_apply=%add
  ROOT %out = (s32[], f32[64]{0}) tuple(%i, %x)
}

ENTRY %main () -> f32[] {
  %w = bf16[8,4]{1,0:T(8,128)(2,1)} parameter(0)
  %v = f32[5]{0} parameter(1)
  %loop = (s32[]{:T(128)}, f32[64]{0}) while(%init), condition=%condition, body=%body, metadata={op_name="while"}
  %both = (bf16[8,4]{1,0:T(8,128)(2,1)}, /*index=1*/f32[5]{0}) all-reduce(%w, %v), channel_id=1, to_apply=%add
  %start = (bf16[8,4]{1,0}, bf16[32,4]{1,0}) all-gather-start(%w), dimensions={0}
  %done = bf16[32,4]{1,0} all-gather-done(%start)
  %sent = (f32[5]{0}, f32[5]{0}) collective-permute-start(%v), source_target_pairs={{0,1}}
  %token = token[] after-all()
  %send = (f32[32,8]{1,0:T(8,128)}, u32[], token[]) send(%v, %token), channel_id=2, is_host_transfer=true, frontend_attributes={_xla_megascale_target="{1,2}x{0:15}",_xla_megascale_transfer_type="ALL_REDUCE"}
  %recv = (f32[32,8]{1,0:T(8,128)}, u32[], token[]) recv(%token), channel_id=1, is_host_transfer=true, frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}
  ROOT %zero = f32[] constant(0)
}
"""  # noqa: E501
COPIED, SLICED, ACTIVATIONS = 640 * 1280 * 2, 320 * 1280 * 2, 8 * 1280 * 4


def with_line(line: str) -> str:
    return COPIES.replace("  ROOT %tuple", f"  {line}\n  ROOT %tuple")


def test_fast_memory_is_free_and_what_is_copied_counts_once():
    assert hbm_bytes(COPIES) == COPIED + SLICED + 2 * ACTIVATIONS


def test_a_copy_out_of_fast_memory_is_written():
    out = "(bf16[8,1280]{1,0}, bf16[8,1280]{1,0:S(1)}, u32[]{:S(2)}) copy-start(%fusion.1)"
    assert hbm_bytes(with_line(f"%copy-start.2 = {out}")) == hbm_bytes(COPIES) + 8 * 1280 * 2


def test_where_all_lies_in_main_memory_operands_and_results_count():
    """On a CPU nothing lies elsewhere, whatever it fuses."""
    a, b = jax.ShapeDtypeStruct((64, 32), jnp.float32), jax.ShapeDtypeStruct((32, 16), jnp.float32)
    program = jax.jit(lambda a, b: jnp.dot(a, b)).lower(a, b).compile()
    assert hbm_bytes(program.as_text()) == 4 * (64 * 32 + 32 * 16 + 64 * 16)


@pytest.mark.parametrize("operation", ["while", "conditional", "call"])
def test_what_has_computations_of_its_own_is_unknown(operation):
    assert hbm_bytes(with_line(f"%loop.1 = (f32[8,1280]{{1,0}}) {operation}(%tuple), body=%fused")) is None


def test_cycles_are_those_of_the_entry_computation():
    assert megacycles(COPIES) == 1.75
    assert megacycles(COLLECTIVES) is None


def test_collectives_are_counted_by_kind_and_in_loops_as_often_as_they_run():
    assert collective_bytes(COLLECTIVES) == {
        "reduce-scatter": 3 * 64 * 4,
        "all-reduce": 8 * 4 * 2 + 5 * 4,
        "all-gather": 32 * 4 * 2,
        "collective-permute": 5 * 4,
        "all-reduce between slices": 32 * 8 * 4,
    }


def test_a_trip_count_that_xla_notes_is_taken_and_a_loop_without_one_refused():
    noted = COLLECTIVES.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"7"}}')
    assert collective_bytes(noted)["reduce-scatter"] == 7 * 64 * 4
    with pytest.raises(ValueError, match="loop loop doesn't tell"):
        collective_bytes(COLLECTIVES.replace("s32[]{:T(128)} constant(3)", "s32[]{:T(128)} parameter(0)"))


def test_an_averaged_gradient_is_one_all_reduce_of_its_size():
    mesh = Mesh(jax.devices()[:4], ("data",))
    weight = jax.ShapeDtypeStruct((6, 5), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec()))
    images = jax.ShapeDtypeStruct((8, 6), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("data")))
    program = jax.jit(jax.grad(lambda w, x: jnp.sin(x @ w).sum())).lower(weight, images).compile()
    assert collective_bytes(program.as_text()) == {"all-reduce": 6 * 5 * 4}
