"""The accelerator's benchmark at miniature size, on the CPU."""

import json

import pytest

from benchmarks import accelerator


def run(tmp_path, *options: str) -> list[dict]:
    command = ["--size", "miniature", "--dtype", "float32", "--repeats", "2", "-o", str(tmp_path / "rows.json")]
    accelerator.main([*command, *options])
    return [json.loads(line) for line in (tmp_path / "rows.json").read_text().splitlines()]


def test_each_row_is_measured_in_a_process_of_its_own(tmp_path, capsys):
    first, second = run(tmp_path, "--program", "attention", "attention-plain", "--batch-size", "3")
    assert (first["program"], first["batch"], first["dtype"], first["device"]) == ("attention", 3, "float32", "cpu")
    assert first["images_per_second"] == pytest.approx(3 / first["seconds"])
    assert first["compile_seconds"] > 0
    assert 0.05 < first["peak_gb"] < 2
    assert first["speedup"] == 1
    assert second["speedup"] == pytest.approx(first["seconds"] / second["seconds"])
    assert capsys.readouterr().out.count("| attention") == 2


@pytest.mark.parametrize("name", ["unet", "decode", "encode"])
def test_the_networks_run(name):
    row = accelerator.measure("miniature", name, "bfloat16", 1, repeats=1)
    assert row["images_per_second"] > 0


@pytest.mark.long
@pytest.mark.parametrize("name", ["restore", "train"])
def test_the_whole_runs(name):
    row = accelerator.measure("miniature", name, "float32", 2, repeats=2)
    assert row["images_per_second"] > 0


def test_what_takes_longer_than_the_time_left_says_so_and_is_the_last(tmp_path):
    (row,) = run(tmp_path, "--program", "unet", "decode", "--batch-size", "1", "--minutes", "0.002")
    assert (row["program"], row["problem"]) == ("unet", "out of time")


def test_a_row_that_fails_says_so_and_the_next_one_is_measured(tmp_path, monkeypatch):
    # JAX finds no device of such a platform, so the processes end with exit code 1.
    monkeypatch.setenv("JAX_PLATFORMS", "none")
    rows = run(tmp_path, "--program", "attention", "--batch-size", "1", "2")
    assert [row["problem"] for row in rows] == ["exit code 1, see the messages"] * 2
