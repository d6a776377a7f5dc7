"""The data benchmark on a few small faces."""

import json

import numpy as np

from benchmarks import data
from interlcm_jax.imaging.io import write_image


def test_a_rate_for_each_part(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        write_image(tmp_path / "faces" / f"{name}.png", rng.integers(0, 256, (64, 64, 3), np.uint8))
    options = ["--size", "64", "--count", "6", "--batch-size", "2", "--workers", "0", "-o", str(tmp_path / "rows.json")]
    data.main([str(tmp_path / "faces"), *options])
    rows = [json.loads(line) for line in (tmp_path / "rows.json").read_text().splitlines()]
    assert [row["what"] for row in rows] == ["degradation", "blur alone", "loader, 0 workers"]
    assert all(row["images_per_second"] > 0 and row["size"] == 64 for row in rows)
