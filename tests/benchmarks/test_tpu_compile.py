"""The TPU benchmark's own code at miniature size, compiled for the CPU: CI has no TPU compiler."""

import json

import jax
import jax.numpy as jnp
import pytest

from benchmarks import tpu_compile, tpu_cost, tpu_train
from benchmarks.tpu_compile import PARTS, Setting, rows
from benchmarks.tpu_cost import Cost, compiled
from interlcm_jax.model_folder import ModelConfig


def setting(batch: int = 1, dtype: jax.typing.DTypeLike = jnp.bfloat16, **options: bool | int) -> Setting:
    cpu = jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])
    return Setting(ModelConfig.miniature(), batch, jnp.dtype(dtype), cpu, **options)


@pytest.mark.parametrize("part", ["unet", "encode", "decode"])  # the chain takes a minute
def test_a_program_compiles_and_is_counted(part):
    cost, hlo = compiled(PARTS[part](setting(2)))
    assert "ENTRY" in hlo
    assert cost.tflop > 0
    assert cost.accessed > cost.arguments > 0
    assert cost.temporaries > 0
    assert cost.seconds > 0


def test_arguments_are_the_weights_in_the_dtype_asked_for():
    half, full = (compiled(PARTS["decode"](setting(dtype=dtype)))[0] for dtype in (jnp.bfloat16, jnp.float32))
    latents = 8 * 8 * 4 * 4 / 1e9
    assert full.arguments - latents == pytest.approx(2 * (half.arguments - latents), rel=1e-3)


@pytest.mark.parametrize(
    ("options", "loops"), [({}, 0), ({"unroll": False}, 1), ({"vae_slice": 1}, 2), ({"vae_slice": 2}, 0)]
)
def test_the_chain_has_loops_only_where_asked_for(options, loops):
    function, arguments = PARTS["chain"](setting(2, **options))
    assert jax.jit(function).lower(*arguments).as_text().count("stablehlo.while") == loops


def test_a_row_for_each_of_the_others_with_our_share_of_what_was_measured():
    ours, theirs = Cost(6.0, 20.0, None, 0.4, 1.7, 90.4, 81.6), Cost(None, 40.0, 12.0, 0.5, seconds=100)
    assert list(rows("unet", 8, "v5e:2x2", ours, {"theirs": theirs})) == [
        "| **unet** | 8 | v5e:2x2 | 6.00 | 20.00 |  | 0.40 | 1.70 | 90 | 82 |",
        "| theirs | 8 | v5e:2x2 |  | 40 (0.50) | 12 | 0.5 (0.80) |  | 100 (0.90) |  |",
    ]


def test_cycles_are_those_of_the_entry_computation():
    window = '  %a = f32[] add(), backend_config={{"estimated_cycles":"{}"}}'
    lines = ["HloModule m", window.format(5_000_000), "", "ENTRY %main () -> f32[] {"]
    body = [window.format(1_500_000), "  %b = f32[] copy()", window.format(250_000), "}"]
    assert tpu_cost._megacycles("\n".join(lines + body)) == 1.75
    assert tpu_cost._megacycles("\n".join([*lines, "}"])) is None


def test_the_script_prints_a_table_and_writes_the_same_numbers(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tpu_compile, "tpu", lambda topology: setting().sharding)
    file, folder = tmp_path / "costs.json", tmp_path / "hlo"
    command = ["--miniature", "--prefetch", "--part", "decode", "--batch-size", "1", "2"]
    tpu_compile.main([*command, "--json", str(file), "--hlo", str(folder)])
    first, second = json.loads(file.read_text())["programs"]
    assert (first["part"], first["batch"], first["topology"], second["batch"]) == ("decode", 1, "v5e:2x2", 2)
    assert second["accessed"] > first["accessed"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.startswith("| **decode** |") for line in lines] == [False, False, True, True]
    assert sorted(path.name for path in folder.iterdir()) == ["decode-1-v5e-2x2.txt", "decode-2-v5e-2x2.txt"]


def test_the_compiler_is_told_what_the_command_line_says(tmp_path, monkeypatch):
    monkeypatch.setattr(tpu_compile, "tpu", lambda topology: setting().sharding)
    file = tmp_path / "costs.json"
    command = ["--miniature", "--prefetch", "--part", "decode", "--batch-size", "1", "--json", str(file), "--option"]
    tpu_compile.main([*command, "xla_backend_optimization_level=0"])
    assert json.loads(file.read_text())["options"] == {"xla_backend_optimization_level": "0"}
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such_option"):
        tpu_compile.main([*command, "xla_no_such_option=1"])
    with pytest.raises(SystemExit):
        tpu_compile.main([*command, "xla_backend_optimization_level"])


def test_programs_are_compiled_as_the_package_restores(monkeypatch):
    monkeypatch.setattr(tpu_compile, "tpu", lambda topology: setting().sharding)
    # The compiler for CPUs doesn't know the option for TPUs.
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_msa_max_outstanding_prefetches"):
        tpu_compile.main(["--miniature", "--part", "decode", "--batch-size", "1"])


def test_train_is_the_other_scripts_command_line(monkeypatch):
    asked = []
    monkeypatch.setattr(tpu_train, "main", asked.append)
    tpu_compile.main(["--train", "--topology", "v5e:4x4"])
    assert asked == [["--topology", "v5e:4x4"]]
