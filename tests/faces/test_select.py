"""Which faces of a photo are meant, and the bound on a detector's score."""

import numpy as np
import pytest

from interlcm_jax.errors import InterLCMError
from interlcm_jax.faces.align import template
from interlcm_jax.faces.detect import Face, scoring_above
from interlcm_jax.faces.mtcnn_detector import MTCNN
from interlcm_jax.faces.select import (
    FaceChoice,
    center_face,
    find_candidates,
    largest_face,
    left_to_right,
    select_faces,
)

PHOTO = np.zeros((200, 300, 3), np.uint8)


def face(left, top, width, height, score=0.99):
    box = np.array([left, top, left + width, top + height], float)
    return Face(box, template(width) + np.array([left, top]), score)


# As detectors give them, the best first.
RIGHT, SMALL, CENTER, LEFT = face(220, 20, 50, 60), face(198, 150, 24, 28), face(120, 60, 40, 50), face(10, 90, 70, 40)
FOUND = [RIGHT, SMALL, CENTER, LEFT]


def chosen(faces="all", **options):
    choice = FaceChoice(faces=faces, **options)
    return select_faces(find_candidates(PHOTO, lambda photo: FOUND, choice), PHOTO, faces)


@pytest.mark.parametrize(
    ("faces", "expected"),
    [
        ("all", FOUND),
        ("largest", [LEFT]),
        ("center", [CENTER]),
        ("0", [LEFT]),
        ("3", [RIGHT]),
        ("3,0", [RIGHT, LEFT]),
        (" 1 , 2,1", [SMALL, CENTER]),
    ],
)
def test_faces_by_word_and_by_number(faces, expected):
    assert chosen(faces) == expected


def test_numbers_count_what_size_and_number_leave():
    assert chosen(min_face=40) == [RIGHT, CENTER, LEFT]
    assert chosen("2", min_face=40) == [RIGHT]
    assert chosen(max_faces=2) == [RIGHT, LEFT]
    assert chosen("1", max_faces=2) == [RIGHT]
    assert chosen("largest", min_face=100) == chosen("center", min_face=100) == []


def test_the_smallest_face_counts_pixels_of_the_photo_as_it_came():
    for enlarged, left in ((1, [RIGHT, CENTER, LEFT]), (2, []), (0.5, FOUND)):
        assert find_candidates(PHOTO, lambda photo: FOUND, FaceChoice(min_face=40), enlarged) == left


@pytest.mark.parametrize(
    ("faces", "options", "message"),
    [
        ("4", {}, "there is no face 4: the photo has 4 faces, numbered 0 to 3 from left to right"),
        ("7,1,5", {}, "there is no face 5, 7: the photo has 4 faces"),
        ("1", {"max_faces": 1}, "there is no face 1: the photo has 1 face, which is number 0"),
        ("0", {"min_face": 100}, "there is no face 0: no face was found in the photo"),
    ],
)
def test_numbers_that_no_face_has(faces, options, message):
    with pytest.raises(InterLCMError, match=message):
        chosen(faces, **options)


def test_faces_one_above_the_other_are_numbered_from_above():
    low, high = face(0, 100, 40, 40), face(0, 10, 40, 40)
    assert left_to_right([low, high]) == [high, low]


def test_largest_and_central_face():
    large, central = face(0, 0, 90, 80), face(140, 90, 20, 20)
    assert largest_face([central, large]) is large
    assert center_face([large, central], PHOTO) is central


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"faces": "biggest"}, "faces is 'biggest', but must be all, largest, center, or numbers such as 0 or 0,2"),
        ({"faces": "-1"}, "faces is '-1'"),
        ({"faces": "1,"}, "faces is '1,'"),
        ({"faces": 1}, "faces is 1"),
        ({"faces": ""}, "faces is ''"),
        ({"min_face": -1}, "min_face is -1, but must be a number of pixels from 0"),
        ({"min_face": float("nan")}, "min_face is nan"),
        ({"max_faces": 0}, "max_faces is 0, but must be an integer from 1"),
        ({"max_faces": 1.5}, r"max_faces is 1\.5"),
        ({"detection_threshold": 1.1}, r"detection_threshold is 1\.1, but must be a number from 0 to 1"),
    ],
)
def test_choices_that_do_not_exist(options, message):
    with pytest.raises(InterLCMError, match=message):
        FaceChoice(**options)


def test_the_bound_of_any_function():
    sure, unsure = face(0, 0, 40, 40, 0.9), face(50, 0, 40, 40, 0.6)

    def detector(photo):
        return [sure, unsure]

    assert scoring_above(detector, None) is detector
    assert scoring_above(detector, 0.6)(PHOTO) == [sure]
    for threshold, expected in ((None, [sure, unsure]), (0.5, [sure, unsure]), (0.7, [sure])):
        assert find_candidates(PHOTO, detector, FaceChoice(detection_threshold=threshold)) == expected


def test_the_bound_of_mtcnn_is_that_of_its_last_network():
    detector = MTCNN()
    for score, thresholds in ((0.99, (0.6, 0.7, 0.85, 0.99)), (0.5, (0.6, 0.7, 0.5, 0.5))):
        assert scoring_above(detector, score).thresholds == thresholds
    assert detector.thresholds == MTCNN.thresholds
