"""HBM traffic: what lies in fast memory is free, a copy between the two counts once."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks.hbm_traffic import hbm_traffic

# As the TPU's compiler writes them: a weight of 1280 x 1280 bfloat16 comes into fast memory, half by a copy ahead and
# half in a slice; there it is multiplied with what the program was given, in HBM.
MODULE = """HloModule jit_f, is_scheduled=true

%fused (a: bf16[8,1280]) -> bf16[8,1280] {
  ROOT %neg = bf16[8,1280]{1,0} negate(%a)
}

ENTRY %main.9 (w.1: bf16[640,1280], v.1: bf16[1280,1280], x.1: f32[8,1280]) -> (f32[8,1280]) {
  %w.1 = bf16[640,1280]{1,0:T(8,128)(2,1)} parameter(0)
  %v.1 = bf16[1280,1280]{1,0:T(8,128)(2,1)} parameter(1)
  %x.1 = f32[8,1280]{1,0:T(8,128)} parameter(2)
  %copy-start = (bf16[640,1280]{1,0:T(8,128)(2,1)S(1)}, bf16[640,1280]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}) copy-start(%w.1), backend_config={"dma_priority":1}
  %slice-start.1 = ((bf16[1280,1280]{1,0:T(8,128)(2,1)}), bf16[320,1280]{1,0:T(8,128)(2,1)S(1)}, s32[]{:S(2)}) slice-start(%v.1), slice={[0:320], [0:1280]}
  %copy-done = bf16[640,1280]{1,0:T(8,128)(2,1)S(1)} copy-done(%copy-start)
  %slice-done.1 = bf16[320,1280]{1,0:T(8,128)(2,1)S(1)} slice-done(%slice-start.1)
  %fusion.1 = bf16[8,1280]{1,0:T(8,128)(2,1)S(1)} fusion(%x.1, %copy-done, %slice-done.1), kind=kOutput, calls=%fused
  %fusion.2 = f32[8,1280]{1,0:T(8,128)} fusion(%fusion.1), kind=kLoop, calls=%fused
  ROOT %tuple = (f32[8,1280]{1,0:T(8,128)}) tuple(%fusion.2)
}
"""  # noqa: E501


def test_fast_memory_is_free_and_what_is_copied_counts_once():
    copied, sliced, activations = 640 * 1280 * 2, 320 * 1280 * 2, 8 * 1280 * 4
    assert hbm_traffic(MODULE) == (copied + sliced + activations, activations)


def test_a_copy_out_of_fast_memory_is_written():
    out = "(bf16[8,1280]{1,0}, bf16[8,1280]{1,0:S(1)}, u32[]{:S(2)}) copy-start(%fusion.1)"
    evicted = MODULE.replace("  ROOT %tuple", f"  %copy-start.2 = {out}\n  ROOT %tuple")
    read, written = hbm_traffic(MODULE)
    assert hbm_traffic(evicted) == (read, written + 8 * 1280 * 2)


def test_where_all_lies_in_main_memory_operands_and_results_count():
    """On a CPU nothing lies elsewhere, whatever it fuses."""
    a, b = jax.ShapeDtypeStruct((64, 32), jnp.float32), jax.ShapeDtypeStruct((32, 16), jnp.float32)
    program = jax.jit(lambda a, b: jnp.dot(a, b)).lower(a, b).compile()
    assert hbm_traffic(program.as_text()) == (4 * (64 * 32 + 32 * 16), 4 * 64 * 16)


@pytest.mark.parametrize("operation", ["while", "conditional", "call"])
def test_what_has_computations_of_its_own_is_refused(operation):
    loop = f"  %loop.1 = (f32[8,1280]{{1,0}}) {operation}(%tuple), body=%fused\n"
    with pytest.raises(ValueError, match=f"loop.1: .* a {operation} moves"):
        hbm_traffic(MODULE.replace("  ROOT %tuple", loop + "  ROOT %tuple"))


def test_another_text_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        hbm_traffic("nothing")
