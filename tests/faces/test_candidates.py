"""Geometry of turned rectangles, and which of them stay."""

import numpy as np
import pytest

from interlcm_jax.faces.candidates import Candidates, concatenated


def upright(boxes, scores) -> Candidates:
    boxes = np.array(boxes, float).reshape(-1, 4)
    centers, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    return Candidates(centers, sizes, np.zeros(len(boxes)), np.array(scores, float))


def test_boxes_are_where_they_were_put():
    candidates = upright([[1, 2, 5, 10], [0, 0, 3, 3]], [1, 0])
    np.testing.assert_array_equal(candidates.boxes, [[1, 2, 5, 10], [0, 0, 3, 3]])
    np.testing.assert_array_equal(candidates.sides, [8, 3])
    np.testing.assert_array_equal(Candidates.squares(np.array([[3, 4]]), 12, np.ones(1)).boxes, [[3, 4, 15, 16]])


def test_place_takes_the_corners_of_the_square_about_it():
    corners = np.array([[[0, 0], [1, 0], [1, 1], [0.5, 0.5]]])
    candidates = upright([[10, 20, 14, 28]], [1])
    np.testing.assert_allclose(candidates.place(corners), [[[8, 20], [16, 20], [16, 28], [12, 24]]])
    # A quarter turn clockwise: left and top goes to right and top.
    np.testing.assert_allclose(
        candidates.turned([np.pi / 2]).place(corners), [[[16, 20], [16, 28], [8, 28], [12, 24]]], atol=1e-12
    )


def test_turned_repeats_all_at_each_angle():
    turned = upright([[0, 0, 2, 2], [4, 4, 6, 6]], [0.1, 0.2]).turned([-1, 1])
    np.testing.assert_array_equal(turned.angles, [-1, -1, 1, 1])
    np.testing.assert_array_equal(turned.scores, [0.1, 0.2, 0.1, 0.2])
    np.testing.assert_array_equal(turned.centers, [[1, 1], [5, 5]] * 2)


def test_moved_by_edges_in_widths_of_the_square():
    candidates = upright([[10, 10, 20, 15]], [1])  # square: 10, 7.5, 20, 17.5
    moved = candidates.moved(np.array([[0.1, 0.2, -0.3, 0.4]]))
    np.testing.assert_allclose(moved.boxes, [[11, 9.5, 17, 21.5]])
    turned = candidates.turned([np.pi / 2]).moved(np.array([[0.1, 0, 0.1, 0]]))
    np.testing.assert_allclose(turned.centers, [[15, 13.5]])  # its right is the photo's below


def test_scaled():
    np.testing.assert_allclose(
        upright([[1, 2, 3, 6]], [1]).scaled(np.array([[2, 0.5]])).boxes, [[2, 1, 6, 3]], rtol=1e-12
    )


def test_the_stronger_of_two_that_overlap_stays():
    candidates = upright([[0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10], [0, 5, 10, 15]], [0.5, 0.9, 0.7, 0.6])
    assert candidates.strongest(0.5).tolist() == [1, 2, 3]
    assert candidates.strongest(0.95).tolist() == [1, 2, 3, 0]
    assert candidates.strongest(0.2).tolist() == [1, 2]


def test_what_is_dropped_drops_nothing():
    candidates = upright([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]], [0.9, 0.8, 0.7])
    assert candidates.strongest(0.3).tolist() == [0, 2]


def test_one_within_another():
    candidates = upright([[0, 0, 10, 10], [3, 3, 6, 6]], [0.5, 0.6])
    assert candidates.strongest(0.5).tolist() == [1, 0]
    assert candidates.strongest(0.5, of_smaller=True).tolist() == [1]


@pytest.mark.parametrize("of_smaller", [False, True])
def test_none(of_smaller):
    none = upright([], [])
    assert none.strongest(0.5, of_smaller=of_smaller).shape == (0,)
    assert len(concatenated([none, none])) == 0
    assert none.moved(np.zeros((0, 4))).boxes.shape == (0, 4)


def test_concatenated():
    joined = concatenated([upright([[0, 0, 2, 2]], [0.3]), upright([[1, 1, 2, 2]], [0.4])])
    np.testing.assert_array_equal(joined.boxes, [[0, 0, 2, 2], [1, 1, 2, 2]])
    np.testing.assert_array_equal(joined.scores, [0.3, 0.4])
