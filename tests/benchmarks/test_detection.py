"""The detection benchmark: known places are where the faces are, and matching counts right."""

import numpy as np
import pytest
import skimage.data

from benchmarks.composed_photos import KnownFace, compose
from benchmarks.detection import match, table
from interlcm_jax.faces.align import TEMPLATE, align
from interlcm_jax.faces.detect import Face
from interlcm_jax.imaging.io import write_image

PORTRAIT = np.array([[202.5, 101], [246.5, 103], [224, 127], [203, 139.5], [246.5, 139.5]])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    path = tmp_path_factory.mktemp("faces") / "face.png"
    write_image(path, align(skimage.data.astronaut(), PORTRAIT)[0])
    return [path]


def found(box, score=0.9):
    return Face(np.array(box, float), TEMPLATE, score)


def known(box):
    return KnownFace(np.array(box, float), TEMPLATE, 100.0, 5.0)


def test_faces_are_where_the_photo_says(files):
    """Aligned by the known landmarks, each face of the photo is the one that was pasted."""
    face = align(skimage.data.astronaut(), PORTRAIT)[0].astype(float)[200:400, 160:350]
    photo = compose(np.random.default_rng(3), files)
    assert len(photo.faces) >= 2
    for one in photo.faces:
        crop = align(photo.pixels, one.landmarks)[0].astype(float)[200:400, 160:350]
        assert np.corrcoef(crop.ravel(), face.ravel())[0, 1] > 0.9
        assert (one.landmarks > one.box[:2]).all()
        assert (one.landmarks < one.box[2:]).all()
        assert (one.box[:2] >= 0).all()
        assert (one.box[2:] <= photo.pixels.shape[1::-1]).all()


@pytest.mark.parametrize("degraded", [False, True])
def test_a_photo_is_the_same_each_time(files, degraded):
    first, second = (compose(np.random.default_rng(1), files, degraded=degraded) for _ in range(2))
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert not np.array_equal(first.pixels, compose(np.random.default_rng(2), files, degraded=degraded).pixels)


def test_each_known_face_is_matched_once():
    pairs = match(
        [found([1, 0, 10, 10], 0.8), found([0, 0, 10, 10], 0.9), found([50, 50, 60, 60])],
        [known([0, 0, 10, 10]), known([80, 80, 90, 90])],
    )
    outcome = [(pair.found is not None, pair.known is not None) for pair in pairs]
    assert sorted(outcome) == [(False, True), (True, False), (True, False), (True, True)]
    assert next(pair for pair in pairs if pair.found and pair.known).found.score == 0.9


def test_table():
    lines = table(match([found([0, 0, 10, 10])], [known([0, 0, 10, 10]), known([80, 80, 90, 90])])).splitlines()
    assert lines[1].split() == ["all", "1.000", "0.500", "2", "0.000"]
    assert next(line for line in lines if line.startswith("100 to 160")).split()[-4:] == [
        "1.000",
        "0.500",
        "2",
        "0.000",
    ]
