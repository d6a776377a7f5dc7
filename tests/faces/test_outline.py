import cv2
import numpy as np
import pytest

from interlcm_jax.faces.align import template
from interlcm_jax.faces.outline import head_mask

SKIN, HAIR, WALL = (200, 150, 120), (60, 40, 30), (90, 140, 90)


def portrait(size: int = 256) -> np.ndarray:
    """A head of two colors before a wall, at the template's landmarks."""
    picture = np.full((512, 512, 3), WALL, np.uint8)
    cv2.ellipse(picture, (256, 260), (165, 195), 0, 0, 360, HAIR, -1)
    cv2.ellipse(picture, (256, 300), (140, 180), 0, 0, 360, SKIN, -1)
    noise = np.random.default_rng(0).normal(0, 4, picture.shape)
    return cv2.resize((picture + noise).clip(0, 255).astype(np.uint8), (size, size), interpolation=cv2.INTER_AREA)


def at(mask: np.ndarray, x: int, y: int) -> float:
    """Its value at a place of the 512-pixel template."""
    size = len(mask)
    return float(mask[y * size // 512, x * size // 512])


@pytest.mark.parametrize("size", [64, 256, 512])
def test_the_face_is_pasted_and_the_wall_is_not(size):
    face = portrait(size)
    mask = head_mask(face, face, template(size))
    assert mask.shape == (size, size)
    assert mask.dtype == np.float32
    assert mask.min() >= 0
    assert mask.max() <= 1
    for x, y in ((193, 240), (319, 240), (256, 314), (256, 371), (256, 180), (256, 440), (256, 100)):
        assert at(mask, x, y) > 0.97, (x, y)
    for x, y in ((20, 20), (490, 20), (40, 250), (470, 250), (30, 480), (480, 480)):
        assert at(mask, x, y) < 1e-3, (x, y)
    # The wall beside the head, within the ellipse that heads are looked for in.
    assert at(mask, 85, 140) < 0.1


def test_beyond_the_face_the_input_wins_where_the_restoration_shows_something_else():
    lq = portrait()
    restored = lq.copy()
    restored[: 256 * 130 // 512] = 255 - restored[: 256 * 130 // 512]
    same, other = (head_mask(lq, face, template(256)) for face in (lq, restored))
    assert at(same, 256, 100) > 0.97
    assert at(other, 256, 95) < 0.1
    # On the face it never does: a wrong eye isn't mended by half of another.
    eye = lq.copy()
    eye[110:130, 85:105] = 255
    assert at(head_mask(lq, eye, template(256)), 193, 240) > 0.97


def test_it_is_the_same_each_time():
    face = portrait()
    first = head_mask(face, face, template(256))
    cv2.setRNGSeed(123)
    np.testing.assert_array_equal(head_mask(face, face, template(256)), first)


def test_it_turns_with_the_face():
    face, points = portrait(), template(256)
    turn = cv2.getRotationMatrix2D((127.5, 127.5), 90, 1)
    turned = head_mask(np.rot90(face).copy(), np.rot90(face).copy(), points @ turn[:, :2].T + turn[:, 2])
    assert np.abs(turned - np.rot90(head_mask(face, face, points))).mean() < 0.01


@pytest.mark.parametrize("points", [np.full((5, 2), 128.0), np.full((5, 2), -500.0)])
def test_landmarks_in_one_place_or_elsewhere_do_no_harm(points):
    face = portrait()
    assert np.isfinite(head_mask(face, face, points)).all()


def test_a_face_of_one_color_is_told_by_its_landmarks_alone():
    face = np.full((256, 256, 3), 128, np.uint8)
    mask = head_mask(face, face, template(256))
    assert at(mask, 256, 314) > 0.97
    assert at(mask, 20, 20) < 1e-3
