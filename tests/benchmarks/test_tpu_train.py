"""The training step's benchmark: its counts on programs of known numbers, and the miniature step on CPU devices."""

import json

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from benchmarks import tpu_train
from benchmarks.collectives import collective_bytes
from benchmarks.matrix_flops import matrix_flops
from benchmarks.tpu_train import Step, StepCost, compiled, row, training_step
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.training.config import MeshConfig, StartConfig, TrainConfig

# As XLA for TPU writes them: layouts with tiles, an unmarked trip count, asynchronous pairs, a tuple summed at once.
HLO = """HloModule step, entry_computation_layout={()->f32[]}

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
  ROOT %zero = f32[] constant(0)
}
"""


def mesh(*shape: int) -> Mesh:
    devices = jax.devices()[: shape[0] * shape[1]]
    return tpu_train.make_mesh(MeshConfig(*shape), devices)


def test_collectives_are_counted_by_kind_and_in_loops_as_often_as_they_run():
    assert collective_bytes(HLO) == {
        "reduce-scatter": 3 * 64 * 4,
        "all-reduce": 8 * 4 * 2 + 5 * 4,
        "all-gather": 32 * 4 * 2,
        "collective-permute": 5 * 4,
    }


def test_a_trip_count_that_xla_notes_is_taken_and_a_loop_without_one_refused():
    noted = HLO.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"7"}}')
    assert collective_bytes(noted)["reduce-scatter"] == 7 * 64 * 4
    with pytest.raises(ValueError, match="loop loop doesn't tell"):
        collective_bytes(HLO.replace("s32[]{:T(128)} constant(3)", "s32[]{:T(128)} parameter(0)"))


def test_an_averaged_gradient_is_one_all_reduce_of_its_size():
    split = NamedSharding(mesh(4, 1), PartitionSpec("data"))
    weight = jax.ShapeDtypeStruct((6, 5), jnp.float32, sharding=NamedSharding(mesh(4, 1), PartitionSpec()))
    images = jax.ShapeDtypeStruct((8, 6), jnp.float32, sharding=split)
    program = jax.jit(jax.grad(lambda w, x: jnp.sin(x @ w).sum())).lower(weight, images).compile()
    assert collective_bytes(program.as_text()) == {"all-reduce": 6 * 5 * 4}


def flops(function, *shapes: tuple[int, ...]) -> float:
    return matrix_flops(jax.make_jaxpr(function)(*(jnp.zeros(shape) for shape in shapes)).jaxpr)


def test_flops_of_products_convolutions_and_loops():
    product = 2 * 3 * 4 * 5
    assert flops(lambda x, y: x @ y, (3, 4), (4, 5)) == product
    assert flops(lambda x, y: jax.lax.scan(lambda c, _: (c, x @ y), 0, length=7)[1], (3, 4), (4, 5)) == 7 * product
    assert flops(lambda x, y: jax.lax.cond(True, lambda: x @ y, lambda: 0 * x @ y @ y.T @ y), (3, 4), (4, 5)) > product
    names = ("NHWC", "HWIO", "NHWC")
    convolve = lambda x, k: jax.lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=names)  # noqa: E731
    assert flops(convolve, (2, 8, 8, 3), (3, 3, 3, 5)) == 2 * (2 * 8 * 8 * 5) * (3 * 3 * 3)


def test_a_backward_pass_takes_twice_the_flops_and_what_is_rematerialized_counts_again():
    def chain(x, y):
        return jnp.sin(x @ y) @ y

    plain = flops(jax.grad(lambda x, y: chain(x, y).sum(), (0, 1)), (4, 4), (4, 4))
    again = flops(jax.grad(lambda x, y: jax.checkpoint(chain)(x, y).sum(), (0, 1)), (4, 4), (4, 4))
    one = 2 * 4**3
    assert (plain, again) == (6 * one, 7 * one)


def test_a_kernel_split_over_the_mesh_counts_on_every_device():
    axes = Mesh(jax.devices()[:4], ("data",), axis_types=(AxisType.Auto,))
    split = jax.shard_map(
        lambda x: x @ x.T, mesh=axes, in_specs=PartitionSpec("data"), out_specs=PartitionSpec("data"), check_vma=False
    )
    assert flops(split, (8, 3)) == 4 * 2 * (2 * 3 * 2)


@pytest.fixture(scope="module")
def config() -> TrainConfig:
    return TrainConfig(start=StartConfig(random="miniature"), mesh=MeshConfig(2, 2), batch_size=4)


def test_the_state_is_split_and_the_images_lie_on_all_devices(config):
    step = training_step(config, ModelConfig.miniature(), jax.devices()[:4])
    state, frozen, _, batch = step.arguments
    assert batch["lq"].sharding.shard_shape(batch["lq"].shape) == (1, 64, 64, 3)
    assert any("fsdp" in tuple(spec.sharding.spec) for spec in state.params.values())
    assert state.params.keys() == state.ema.keys()
    assert all(spec.dtype == jnp.bfloat16 for spec in frozen.values())


def test_a_program_is_counted_and_its_state_taken_over():
    place = NamedSharding(mesh(2, 1), PartitionSpec())
    state = jax.ShapeDtypeStruct((256, 256), jnp.float32, sharding=place)
    cost, hlo = compiled(Step(lambda state: state @ state, (state,), mesh(2, 1), place))
    assert "ENTRY" in hlo
    assert cost.gib == pytest.approx(256 * 256 * 4 / 2**30 + cost.temporaries)
    assert cost.collectives == {}
    assert cost.accessed > 0


def test_the_effort_is_the_compilers_and_its_default_is_left_alone():
    asked = []

    class Refusing(Step):
        def traced(self):
            return self

        def lower(self):
            return self

        def compile(self, options):
            asked.append(options)
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")

    step = Refusing(None, (), mesh(2, 2), None)
    assert compiled(step, -1.0)[0].problem == compiled(step)[0].problem == "out of memory"
    assert asked == [{"exec_time_optimization_effort": -1.0}, {}]


def test_what_does_not_fit_is_a_row_that_says_so(monkeypatch, config):
    def refuse(step):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: XLA:TPU: Used 17.60G of 15.75G hbm. Exceeded by 1.8G.")

    monkeypatch.setattr(Step, "traced", refuse)
    cost, _ = compiled(Step(None, (), mesh(2, 2), None))
    assert cost.problem == "Used 17.60G of 15.75G hbm"
    cost = StepCost(tflop=1.5, recomputed=0.2, seconds=9.6, problem=cost.problem)
    line = row("v5e:2x2", mesh(2, 2), config, cost)
    assert line == "| v5e:2x2 | 4 | 2x2 | blocks | 1/1 |  |  | 1.50 | 20% |  | Used 17.60G of 15.75G hbm | 10 |"


def test_the_script_prints_a_table_and_writes_the_same_numbers(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tpu_train, "tpu_devices", lambda topology: jax.devices()[:4])
    cost = StepCost(1.0, 0.5, accessed=2.0, collectives={"all-reduce": 0.125}, seconds=3.0)
    monkeypatch.setattr(tpu_train, "compiled", lambda step, effort: (cost, f"ENTRY {effort}"))
    file, folder = tmp_path / "costs.json", tmp_path / "hlo"
    tpu_train.main(["--miniature", "--fsdp", "2", "--effort", "-1", "--json", str(file), "--hlo", str(folder)])
    (step,) = json.loads(file.read_text())["steps"]
    assert (step["chips"], step["fsdp"], step["collectives"]) == (4, 2, {"all-reduce": 0.125})
    assert 0 < step["recomputed"] < 1
    assert "| v5e:4x4 | 4 | 2x2 | blocks | 1/1 | 1.00 | 0.50 |" in capsys.readouterr().out
    assert [path.name for path in folder.iterdir()] == ["v5e-4x4-2-1-blocks.txt"]
    assert (folder / "v5e-4x4-2-1-blocks.txt").read_text() == "ENTRY -1.0"
