"""Alignment: where the landmarks go, what an aligned face shows, and which faces are large enough."""

import cv2
import numpy as np
import pytest
import skimage.data

from interlcm_jax.errors import InterLCMError
from interlcm_jax.faces.align import (
    BORDER,
    TEMPLATE,
    align,
    alignment,
    large_enough,
    template,
)
from interlcm_jax.faces.detect import Face

PORTRAIT = np.array([[203, 100], [247, 101], [228, 125], [203, 139], [246, 140.0]])  # eyes, nose, mouth: by eye


def turned(points, angle, scale, shift):
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    return scale * points @ np.array([[cos, sin], [-sin, cos]]) + shift


def apply(matrix, points):
    return points @ matrix[:, :2].T + matrix[:, 2]


def face(box, landmarks=TEMPLATE):
    return Face(np.array(box, float), np.asarray(landmarks, float), 1.0)


@pytest.mark.parametrize("size", [64, 512])
@pytest.mark.parametrize(("angle", "scale"), [(0, 1), (30, 0.1), (-140, 4)])
def test_the_matrix_takes_landmarks_to_the_template(size, angle, scale):
    landmarks = turned(TEMPLATE, angle, scale, [300, 40])
    np.testing.assert_allclose(apply(alignment(landmarks, size), landmarks), template(size), atol=1e-3)


def test_the_template_scales_about_the_edges_of_the_picture():
    np.testing.assert_array_equal(template(512), TEMPLATE)
    np.testing.assert_allclose((template(256) + 0.5) * 2, TEMPLATE + 0.5)


def test_one_wrong_landmark_changes_nothing():
    landmarks = turned(TEMPLATE, 10, 0.5, [5, 5])
    expected = alignment(landmarks, 512)
    landmarks[2] += 40
    np.testing.assert_allclose(alignment(landmarks, 512), expected, atol=1e-2)


def test_the_same_photo_gives_the_same_matrix():
    landmarks = turned(TEMPLATE, 10, 0.5, [5, 5]) + np.random.default_rng(0).normal(0, 3, (5, 2))
    expected = alignment(landmarks, 512)
    for seed in range(5):
        cv2.setRNGSeed(seed)
        np.testing.assert_array_equal(alignment(landmarks, 512), expected)


@pytest.mark.parametrize("value", [0.0, 77.0, np.nan, np.inf])
def test_landmarks_all_in_one_place(value):
    with pytest.raises(InterLCMError, match="can't be aligned"):
        alignment(np.full((5, 2), value), 512)


def test_a_turned_portrait_comes_out_upright():
    portrait = skimage.data.astronaut()
    upright, _ = align(portrait, PORTRAIT)
    matrix = cv2.getRotationMatrix2D((225, 120), 25, 1.3)
    photo = cv2.warpAffine(portrait, matrix, (600, 600), borderMode=cv2.BORDER_REPLICATE)
    crop, _ = align(photo, apply(matrix, PORTRAIT))
    assert crop.shape == (512, 512, 3)
    assert crop.dtype == np.uint8
    inside = np.s_[150:420, 130:380]
    assert np.abs(crop[inside].astype(float) - upright[inside]).mean() < 3
    shifted = np.roll(upright, 8, axis=1)  # what the measure says of a face that isn't in its place
    assert np.abs(shifted[inside].astype(float) - upright[inside]).mean() > 6


def test_an_aligned_face_is_kept():
    photo = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    crop, matrix = align(photo, TEMPLATE)
    np.testing.assert_allclose(matrix, [[1, 0, 0], [0, 1, 0]], atol=1e-4)
    assert np.abs(crop.astype(int) - photo).max() <= 1


def test_beyond_the_photo():
    crop, _ = align(np.zeros((100, 100, 3), np.uint8), TEMPLATE + 400)
    assert (crop == BORDER).all()


def test_a_much_larger_face_is_averaged():
    """Stripes a pixel wide are gray from afar; looking at four pixels only, some would be seen."""
    photo = np.zeros((2400, 2400, 3), np.uint8)
    photo[::2] = 255
    crop, _ = align(photo, TEMPLATE * 4.5)
    assert np.abs(crop.astype(int) - 127.5).max() < 20


@pytest.mark.parametrize("scale", [2.0, 3.7, 5.0])
def test_a_much_larger_face_is_in_the_same_place(scale):
    """A photo that is the aligned one enlarged gives it back, to half a pixel and less."""
    blurred = cv2.GaussianBlur(skimage.data.astronaut(), (0, 0), 3)
    photo = cv2.resize(blurred, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    crop, matrix = align(photo, (TEMPLATE + 0.5) * scale - 0.5)
    difference = np.abs(crop.astype(float) - blurred)[8:-8, 8:-8]
    assert difference.mean() < 0.5
    shifted = np.abs(np.roll(blurred, 1, axis=1).astype(float) - blurred)[8:-8, 8:-8]
    assert shifted.mean() > 1.5
    np.testing.assert_allclose(matrix[:, :2], np.eye(2) / scale, atol=1e-5)


def test_small_faces_are_left_out():
    wide = np.linalg.norm(TEMPLATE[1] - TEMPLATE[0])
    small, enough = face([0, 0, 9, 9], TEMPLATE * 4.9 / wide), face([0, 0, 9, 9], TEMPLATE * 5.1 / wide)
    broken = face([0, 0, 9, 9], np.full((5, 2), np.nan))
    assert large_enough([small, enough, broken]) == [enough]
    assert large_enough([small, enough, broken], 0) == [small, enough]
    assert large_enough([]) == []
