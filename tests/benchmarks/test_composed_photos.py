"""The benchmark of detectors: what is in its photos, and what it says of detectors that know that."""

import json

import numpy as np
import pytest

from benchmarks import composed_photos
from benchmarks.composed_photos import SIZES, TURN, compose, error, measure
from interlcm_jax.faces.detect import Face
from interlcm_jax.imaging.io import write_image


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a green face."""
    folder, green = tmp_path_factory.mktemp("faces"), np.zeros((128, 128, 3), np.uint8)
    green[..., 1] = 255
    write_image(folder / "face.png", green)
    return folder


@pytest.fixture(scope="module")
def made(folder):
    """Photos of it on a gray scene."""
    scene = np.full((100, 90, 3), 90, np.uint8)
    return [compose([folder / "face.png"], [scene], seed) for seed in range(6)]


def face(landmarks, score=1.0):
    return Face(np.concatenate([landmarks.min(0), landmarks.max(0)]), landmarks, score)


def test_faces_are_where_the_photo_says(made):
    assert {len(photo.landmarks) > 0 for photo in made} == {True, False}
    for photo in made:
        greens = np.argwhere(photo.pixels[..., 1].astype(int) > 60 + photo.pixels[..., 0].astype(int))
        assert bool(len(greens)) == bool(photo.landmarks)
        for landmarks, size in zip(photo.landmarks, photo.sizes, strict=True):
            assert SIZES[0] <= size <= SIZES[1]
            x, y = landmarks.mean(0).round().astype(int)
            assert (np.linalg.norm(greens - [y, x], axis=1) < 1).any()
            right, down = landmarks[1] - landmarks[0]
            assert abs(np.degrees(np.arctan2(down, right))) <= TURN + 1


def test_what_is_said_of_detectors_that_know(made):
    known = {photo.pixels.tobytes(): photo.landmarks for photo in made}
    row = measure(lambda pixels: [face(points) for points in known.get(pixels.tobytes(), [])], iter(made))
    assert (row["recall"], row["precision"], row["false_faces"], row["landmark_error"]) == (1, 1, 0, 0)
    assert row["faces"] == sum(len(photo.landmarks) for photo in made)
    astray = measure(lambda pixels: [face(p + 400) for p in known.get(pixels.tobytes(), [])], iter(made))
    assert astray["recall"] < 0.2 > astray["precision"]
    blind = measure(lambda pixels: [], iter(made))
    assert (blind["recall"], blind["false_faces"], blind["landmark_error"]) == (0, 0, None)


def test_the_error_counts_distances_of_the_eyes():
    points = np.array([[0.0, 0], [10, 0], [5, 5], [0, 10], [10, 10]])
    assert error(face(points + np.array([3, 4])), points) == pytest.approx(0.5)


def test_a_row_for_each_detector(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(composed_photos, "MTCNN", lambda: lambda pixels: [])
    composed_photos.main([str(folder), "--count", "2", "-o", str(tmp_path / "rows.json")])
    [row] = map(json.loads, (tmp_path / "rows.json").read_text().splitlines())
    assert row["detector"] == "MTCNN"
    assert row["seconds"] > 0
