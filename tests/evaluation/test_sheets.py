"""Which images are shown, and what a sheet of one image shows."""

import numpy as np
from PIL import Image

from interlcm_jax.evaluation.catalog import METRICS
from interlcm_jax.evaluation.sheets import TILE, choose, sheet, zooms
from tests.evaluation.pictures import picture, save

TWO = [METRICS["psnr"], METRICS["ssim"]]


def test_the_worst_and_the_best_are_shown(report):
    names = choose(report.comparison, TWO, 4)
    images = report.comparison.methods[0].scores["psnr"].images
    order = sorted(images, key=images.get)
    assert names[0] == order[0]
    assert names[1] == order[-1]
    assert len(names) == 4
    assert len(choose(report.comparison, TWO, 100)) == 8


def test_zooms_are_on_eyes_and_mouth():
    eyes, mouth = zooms(512)
    assert eyes[0] < 192.98 < 318.90 < eyes[2]
    assert eyes[1] < 240 < eyes[3]
    assert mouth[0] < 201.26 < 313.09 < mouth[2]
    assert mouth[1] < 371.3 < mouth[3]
    np.testing.assert_allclose(zooms(64), np.array([eyes, mouth]) / 8)


def test_a_sheet_shows_the_pixels_and_a_gray_tile_for_what_is_missing(tmp_path):
    face = np.zeros((512, 512, 3), np.uint8)
    left, top, right, bottom = (round(edge) for edge in zooms(512)[0])
    face[top:bottom, left:right] = (250, 10, 10)
    save(tmp_path / "face.png", face)
    save(tmp_path / "wide.png", picture(0, 32)[:16])
    image = np.asarray(sheet([tmp_path / "face.png", None, tmp_path / "wide.png"]))
    assert image[TILE + 30, TILE // 2].tolist() == [250, 10, 10]
    assert image[-20, TILE // 2].tolist() == [0, 0, 0]
    assert (image[:, TILE + 10 : TILE + 20] == 200).all()
    assert (image[-20, -20] == 255).all()
    Image.fromarray(image)
