"""Subjects are scored over the same images, by the metrics whose weights are there."""

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from interlcm_jax.evaluation import per_image
from interlcm_jax.evaluation.catalog import METRICS
from interlcm_jax.evaluation.compare import Subject, compare
from interlcm_jax.evaluation.metric import Metric
from interlcm_jax.evaluation.pairs import images_by_name
from interlcm_jax.evaluation.weights import Library
from tests.evaluation.pictures import save, write_set
from tests.evaluation.scored import pixels_of, scored

THREE = [METRICS[name] for name in ("psnr", "ssim", "lpips")]


def test_the_score_is_the_mean_of_each_images_own(tmp_path):
    write_set(tmp_path, 5)
    score = scored(tmp_path, THREE[:1]).rows[0].scores["psnr"]
    wanted = [
        peak_signal_noise_ratio(hq, restored)
        for restored, hq in zip(pixels_of(tmp_path / "restored"), pixels_of(tmp_path / "hq"), strict=True)
    ]
    assert list(score.images.values()) == pytest.approx(wanted, abs=1e-6)
    assert score.value == pytest.approx(np.mean(wanted), abs=1e-6)
    assert min(wanted) < score.interval[0] < score.value < score.interval[1] < max(wanted)


def test_methods_are_compared_over_the_images_that_all_have(tmp_path):
    write_set(tmp_path, 5)
    hq = images_by_name(tmp_path / "hq")[0]
    restored = images_by_name(tmp_path / "restored")[0]
    first = {name: file for name, file in restored.items() if name != "004"}
    second = {name: file for name, file in restored.items() if name != "001"}
    (tmp_path / "broken.png").write_bytes(b"broken")
    second["003"] = tmp_path / "broken.png"
    lq = images_by_name(tmp_path / "lq")[0]
    lq.pop("000")
    subjects = [
        Subject("LQ", "lq", lq),
        Subject("one", "method", first),
        Subject("two", "method", second),
        Subject("HQ", "hq", hq),
    ]
    scores = compare(subjects, hq, THREE[:1], Library())
    assert [row.subject.name for row in scores.rows] == ["LQ", "one", "two", "HQ"]
    assert [row.names for row in scores.rows] == [["002"], *[["000", "002"]] * 3]
    assert scores.rows[0].problems == ["LQ: no image 000"]
    assert scores.rows[3].scores["psnr"].why == "is the reference"
    one, two = (row.scores["psnr"].images for row in scores.methods)
    assert one == two


def test_without_originals_only_metrics_that_need_none_are_scored(tmp_path):
    write_set(tmp_path, 3)
    brightness = Metric(
        "brightness",
        "Brightness",
        "higher",
        "the mean level",
        "this test",
        (per_image.ImageMeasure(("restored",), per_image.without_weights(lambda x: x.mean(axis=(1, 2, 3)))),),
        lambda rows: rows,
    )
    spread = Metric(
        "spread", "Spread", "lower", "", "", brightness.measures, set_score=lambda rows: float(np.ptp(rows)), digits=1
    )
    scores = compare(
        [Subject.of_folder("restored", "method", tmp_path / "restored")],
        None,
        [*THREE[:1], brightness, spread],
        Library(),
    )
    row = scores.rows[0]
    assert row.scores["psnr"].value is None
    assert row.scores["psnr"].why == "needs a reference"
    values = list(row.scores["brightness"].images.values())
    assert row.scores["brightness"].value == pytest.approx(np.mean(values))
    assert row.scores["spread"].value == pytest.approx(max(values) - min(values))
    assert row.scores["spread"].interval is None
    assert scores.reference_digest is None


def test_the_references_hash_is_that_of_names_and_pixels(tmp_path):
    write_set(tmp_path, 3)
    first = scored(tmp_path, THREE[:1]).reference_digest
    Image.open(tmp_path / "hq" / "001.png").save(tmp_path / "hq" / "001.bmp")
    (tmp_path / "hq" / "001.png").unlink()
    assert scored(tmp_path, THREE[:1]).reference_digest == first
    pixels = np.array(Image.open(tmp_path / "hq" / "002.png"))
    pixels[5, 5, 1] ^= 1
    save(tmp_path / "hq" / "002.png", pixels)
    assert scored(tmp_path, THREE[:1]).reference_digest != first


def test_no_weights_no_number(tmp_path):
    write_set(tmp_path, 2)
    scores = scored(tmp_path, THREE)
    assert scores.rows[0].scores["lpips"].value is None
    assert scores.rows[0].scores["lpips"].why == "no weights"
    assert scores.rows[0].scores["ssim"].value is not None
    assert "LPIPS: no weights (no lpips.safetensors" in scores.notes[0]
