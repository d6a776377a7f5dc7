"""Anchors and the choice among overlapping boxes, by hand."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from interlcm_jax.faces.anchors import decode_boxes, decode_landmarks, distinct, make_anchors
from interlcm_jax.faces.retinaface import RetinaFaceConfig

CONFIG = RetinaFaceConfig()


def test_anchors_of_a_small_photo():
    """20 x 9 pixels: 3 x 2 positions of 8 pixels, 2 x 1 of 16, 1 x 1 of 32, two anchors each."""
    anchors = make_anchors(CONFIG, 9, 20)
    assert anchors.shape == (2 * (6 + 2 + 1), 4)
    np.testing.assert_array_equal(anchors[:4], [[4, 4, 16, 16], [4, 4, 32, 32], [12, 4, 16, 16], [12, 4, 32, 32]])
    np.testing.assert_array_equal(anchors[6], [4, 12, 16, 16])
    np.testing.assert_array_equal(anchors[12], [8, 8, 64, 64])
    np.testing.assert_array_equal(anchors[-1], [16, 16, 512, 512])


def test_anchors_follow_the_config():
    anchors = make_anchors(dataclasses.replace(CONFIG, anchor_sizes=(1, 2, 3)), 32, 32)
    assert anchors.shape == (16 + 4 + 1, 4)
    assert set(anchors[:, 2]) == {1, 2, 3}


def test_nothing_predicted_is_the_anchor_itself():
    anchors = jnp.asarray(make_anchors(CONFIG, 32, 32))
    boxes = decode_boxes(CONFIG, jnp.zeros((1, len(anchors), 4)), anchors)[0]
    np.testing.assert_array_equal(
        boxes, np.hstack([anchors[:, :2] - anchors[:, 2:] / 2, anchors[:, :2] + anchors[:, 2:] / 2])
    )
    landmarks = decode_landmarks(CONFIG, jnp.zeros((1, len(anchors), 10)), anchors)[0]
    np.testing.assert_array_equal(landmarks, np.repeat(anchors[:, None, :2], 5, axis=1))


def test_decoding_by_hand():
    anchor = jnp.array([[100.0, 50.0, 20.0, 20.0]])
    box = decode_boxes(CONFIG, jnp.array([[[5.0, -5.0, 5 * np.log(2), 0.0]]], jnp.float32), anchor)
    np.testing.assert_allclose(box, [[[90, 30, 130, 50]]], atol=1e-4)
    landmarks = decode_landmarks(CONFIG, jnp.arange(10.0).reshape(1, 1, 10), anchor)
    np.testing.assert_allclose(landmarks[0, 0], [[100, 52], [104, 56], [108, 60], [112, 64], [116, 68]], atol=1e-4)


@pytest.mark.parametrize(
    ("max_overlap", "kept"), [(0.0, [0, 3]), (0.4, [0, 2, 3]), (0.7, [0, 1, 2, 3]), (1.0, [0, 1, 2, 3])]
)
def test_distinct(max_overlap, kept):
    """Boxes of 10 x 10 pixels, borders included: the first shares 60 of 140, 50 of 150 and none."""
    boxes = np.array([[0, 0, 9, 9], [0, 4, 9, 13], [5, 0, 14, 9], [50, 50, 59, 59]], np.float32)
    assert distinct(boxes, max_overlap) == kept


def test_what_is_dropped_drops_nothing_itself():
    boxes = np.array([[0, 0, 9, 9], [4, 0, 13, 9], [8, 0, 17, 9]], np.float32)
    assert distinct(boxes, 0.4) == [0, 2]


def test_no_boxes():
    assert distinct(np.zeros((0, 4), np.float32), 0.4) == []
