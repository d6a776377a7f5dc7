"""`benchmarks/restore.py` at miniature size: both sides run, restore the same, and the figures are whole."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_miniature(tmp_path):
    options = ["--repeats", "1", "--folder", str(tmp_path), "--json", str(tmp_path / "figures.json")]
    command = [sys.executable, "-m", "benchmarks.restore", "--size", "miniature", *options]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    header, _, *rows = run.stdout.splitlines()
    assert [name.strip() for name in header.split("|")[2:-1]] == ["interlcm_jax", "PyTorch", "ratio"]
    assert len(rows) == 7
    assert all(row.count("|") == 5 for row in rows)

    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["size"], figures["dtype"], figures["batch_size"]) == ("miniature", "float32", 1)
    for name in ("seconds", "first", "peak"):
        assert figures[name].keys() == {"interlcm_jax", "PyTorch"}
        assert min(figures[name].values()) > 0
    seconds = figures["seconds"]
    assert figures["ratio"] == seconds["interlcm_jax"] / seconds["PyTorch"]
    assert figures["levels"] <= 1
    # The second process found every program in the cache, and was so the sooner ready.
    assert figures["compiled_again"] == 0
    assert figures["first"]["interlcm_jax"] < figures["first_cold"]
    assert figures["peak"]["interlcm_jax"] < figures["peak_compiling"]
