"""The benchmarks against PyTorch at miniature size: both sides run, restore the same, and the figures are whole."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.turns import OURS, THEIRS

ROOT = Path(__file__).parents[2]


def run(module: str, *options: str) -> str:
    command = [sys.executable, "-m", f"benchmarks.{module}", "--repeats", "1", *options]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert run.returncode == 0, run.stderr
    return run.stdout


def read(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.long
def test_restoration(tmp_path):
    out = run("restore", "--folder", str(tmp_path), "-o", str(tmp_path / "rows.json"))
    *_, difference = out.splitlines()
    assert difference in [f"largest difference: {levels} of 255 levels" for levels in (0, 1)]
    cold, ours, theirs = read(tmp_path / "rows.json")
    assert [row["side"].partition(",")[0] for row in (cold, ours, theirs)] == [
        "interlcm_jax",
        "interlcm_jax",
        "PyTorch",
    ]
    assert ours["of_theirs"] == ours["seconds"] / theirs["seconds"]
    assert (ours["size"], ours["dtype"], ours["batch_size"]) == ("miniature", "float32", 1)
    # The second process found every program in the cache, and was so the sooner ready.
    assert ours["compiled"] == 0 < cold["compiled"]
    assert ours["first_seconds"] < cold["first_seconds"]
    assert ours["peak_gb"] < cold["peak_gb"]


@pytest.mark.long
def test_a_training_step(tmp_path):
    run("train_step", "--batch-size", "2", "-o", str(tmp_path / "rows.json"))
    ours, theirs = read(tmp_path / "rows.json")
    assert (ours["side"], theirs["side"]) == (OURS, THEIRS)
    assert ours["of_theirs"] == ours["seconds"] / theirs["seconds"] > 0
