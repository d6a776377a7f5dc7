"""Faces followed through frames: crossing, lost, cut off, flashing up."""

import numpy as np

from interlcm_jax.faces.track import MAX_GAP, MIN_FRAMES, face_size, track_faces
from tests.photos.darkening import face


def tracked(frames, cuts=()):
    """Tracks of faces given frame by frame as (left, top, side); for each, its start and members."""
    landmarks = [face(*one).landmarks for frame in frames for one in frame]
    marks = np.isin(np.arange(len(frames)), cuts)
    tracks = track_faces([len(frame) for frame in frames], np.array(landmarks).reshape(-1, 5, 2), marks)
    return [(track.start, track.members.tolist()) for track in tracks]


def test_two_faces_that_pass_each_other_keep_their_tracks():
    frames = [[(8 * i, 0, 60), (200 - 8 * i, 25, 60)][:: 1 if i % 2 else -1] for i in range(26)]
    first, second = tracked(frames)
    rightwards = [2 * i + (i + 1) % 2 for i in range(26)]
    assert sorted([first, second]) == sorted([(0, rightwards), (0, [4 * i + 1 - m for i, m in enumerate(rightwards)])])


def test_a_face_that_is_lost_for_a_few_frames_stays_one_track():
    there = [[(5 * i, 10, 60)] for i in range(30)]
    for i in range(10, 10 + MAX_GAP):
        there[i] = []
    members = [*range(10), *[-1] * MAX_GAP, *range(10, 30 - MAX_GAP)]
    assert tracked(there) == [(0, members)]
    there[10 + MAX_GAP] = []
    assert [start for start, _ in tracked(there)] == [0, 11 + MAX_GAP]


def test_a_track_ends_where_it_was_last_found_and_at_cuts():
    assert tracked([[(0, 0, 60)]] * 6 + [[]] * 4) == [(0, [0, 1, 2, 3, 4, 5])]
    assert tracked([[(0, 0, 60)]] * 10, cuts=[5]) == [(0, [0, 1, 2, 3, 4]), (5, [5, 6, 7, 8, 9])]


def test_faces_that_flash_up_are_left_out_but_not_those_of_short_scenes():
    few = MIN_FRAMES - 1
    flash = [[(0, 0, 60)] + [(150, 0, 60)] * (3 <= i < 3 + few) for i in range(12)]
    assert len(tracked(flash)) == 1
    assert tracked([[(0, 0, 60)]] * few) == [(0, list(range(few)))]
    assert tracked([[(0, 0, 60)]] * 8, cuts=[6]) == [(0, [0, 1, 2, 3, 4, 5]), (6, [6, 7])]


def test_a_face_elsewhere_or_of_another_size_is_another():
    assert len(tracked([[(0, 0, 60)]] * 6 + [[(90, 0, 60)]] * 6)) == 2
    assert len(tracked([[(0, 0, 60)]] * 6 + [[(-20, -20, 100)]] * 6)) == 2


def test_no_faces_and_no_frames():
    assert tracked([[], [], []]) == []
    assert tracked([]) == []


def test_the_size_of_a_face_in_profile():
    front = face(0, 0, 128).landmarks
    profile = front * [0.2, 1]
    assert face_size(profile) > 0.9 * (front[3:].mean(0) - front[:2].mean(0))[1]
