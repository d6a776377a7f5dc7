"""The small model's benchmark on a miniature and a few small faces."""

import json

import cv2
import numpy as np
import pytest

from benchmarks import small_model
from interlcm_jax.data.sources import HQ, LQ
from interlcm_jax.imaging.io import write_image
from tests.miniature import miniature_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "miniature"
    miniature_model().save_pretrained(folder)
    return folder


def run(what, path, model, out):
    small_model.main([what, str(path), "--model", str(model), "-o", str(out)])
    return [json.loads(line) for line in out.read_text().splitlines()]


def gray(level: int) -> np.ndarray:
    return np.random.default_rng(level).integers(level - 20, level + 20, (64, 64, 3), np.uint8)


def test_groups(tmp_path, model):
    levels = {"female_1": 60, "female_2": 200, "male_1": 30, "male_2": 130, "male_3": 220, "male_4": 100}
    for name, level in levels.items():
        write_image(tmp_path / "set" / HQ / f"{name}.png", gray(level))
        write_image(tmp_path / "set" / LQ / f"{name}.png", cv2.blur(gray(level), (3, 3)))
    rows = run("groups", tmp_path / "set", model, tmp_path / "rows.json")
    numbers = {"all": 6, "female": 2, "male": 4, "dark": 2, "middle": 2, "light": 2}
    assert {row["faces"]: row["number"] for row in rows} == numbers
    psnr = {row["faces"]: row["PSNR_low_quality"] for row in rows}
    assert psnr["all"] == pytest.approx((psnr["dark"] + psnr["middle"] + psnr["light"]) / 3)
    assert psnr["all"] == pytest.approx((2 * psnr["female"] + 4 * psnr["male"]) / 6)


def test_blur(tmp_path, model):
    for level in (60, 200):
        write_image(tmp_path / "faces" / f"{level}.png", gray(level))
    rows = run("blur", tmp_path / "faces", model, tmp_path / "rows.json")
    assert [row["blur"] for row in rows] == list(small_model.SIGMAS)
    distances = [row["distance"] for row in rows]
    assert distances == sorted(distances)
    assert distances[0] == 0
    assert all(row["restored"] > 0 for row in rows)
