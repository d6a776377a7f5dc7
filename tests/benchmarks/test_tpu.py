"""The TPU compiler's view by the code that asks for it, of miniature programs and of CPU devices."""

import json

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.programs import Program
from benchmarks.tpu import __main__ as tpu


@pytest.fixture(autouse=True)
def cpu(monkeypatch):
    """CPU devices in place of a TPU's."""
    monkeypatch.setattr(tpu, "tpu_devices", lambda topology, slices=1: jax.devices()[:4])


def rows(tmp_path, *command: str) -> list[dict]:
    tpu.main([*command, "--size", "miniature", "-o", str(tmp_path / "rows.json")])
    return [json.loads(line) for line in (tmp_path / "rows.json").read_text().splitlines()]


def square() -> Program:
    place = NamedSharding(Mesh(jax.devices()[:2], ("data",)), PartitionSpec())
    state = jax.ShapeDtypeStruct((256, 256), jnp.float32, sharding=place)
    return Program(lambda state: state @ state, (state,), place.mesh, place, donated=True)


def test_a_program_is_counted_and_what_it_takes_over_is_counted_once():
    cost, hlo = tpu.compiled(square(), {})
    assert "ENTRY" in hlo
    assert cost["memory_gib"] == pytest.approx(256 * 256 * 4 / 2**30 + cost["temporaries_gib"])
    assert cost["collectives_gb"] == {}
    assert cost["hbm_gb"] == cost["accessed_gb"] > 0
    assert tpu.tflop(square(), chips=2) == pytest.approx(256**3 / 1e12)


def test_what_does_not_fit_is_a_row_that_says_so(monkeypatch):
    def refuse(program):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: XLA:TPU: Used 17.60G of 15.75G hbm. Exceeded by 1.8G.")

    monkeypatch.setattr(Program, "traced", refuse)
    cost, message = tpu.compiled(square(), {})
    assert cost["problem"] == "Used 17.60G of 15.75G hbm"
    assert "Exceeded" in message


def test_restore_shows_a_table_and_writes_its_numbers_and_the_programs(tmp_path, capsys):
    command = ["--program", "decode", "--batch-size", "1", "2", "--hlo", str(tmp_path / "hlo")]
    first, second = rows(tmp_path, "restore", *command)
    assert (first["program"], first["batch"], first["topology"], second["batch"]) == ("decode", 1, "v5e:2x2", 2)
    assert second["tflop"] == 2 * first["tflop"] > 0
    assert second["accessed_gb"] > first["accessed_gb"] > 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.startswith("| v5e:2x2 | decode |") for line in shown] == [False, False, True, True]
    assert "ENTRY" in (tmp_path / "hlo" / "01-restore.txt").read_text()


def test_the_compiler_is_told_what_the_command_line_says(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(tpu, "compiled", lambda program, options: (asked.append(options) or {}, ""))
    command = ["--size", "miniature", "--program", "decode", "--batch-size", "1"]
    tpu.main(["restore", *command])
    tpu.main(["restore", *command, "--option", "prefetches=-1", "fuse=yes", "--effort", "-1"])
    assert asked == [
        {},
        {"prefetches": "-1", "fuse": "yes", "exec_time_optimization_effort": -1.0},
    ]
    with pytest.raises(SystemExit):
        tpu.main(["restore", *command, "--option", "fuse"])


def test_an_option_that_the_compiler_does_not_know_is_an_error():
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such_option"):
        tpu.compiled(square(), {"xla_no_such_option": "1"})


@pytest.mark.long
def test_train_counts_what_rematerialization_adds(tmp_path):
    (row,) = rows(tmp_path, "train", "--count", "--fsdp", "2", "--remat", "blocks")
    assert (row["chips"], row["fsdp"], row["remat"], row["images_per_chip"]) == (4, 2, "blocks", 1)
    assert 0 < row["recomputed"] < 1
    assert row["tflop"] > 0
    assert "compile_seconds" not in row
