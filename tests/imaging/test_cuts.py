"""Cuts of a video, and what is none: pans, flashes of light."""

import itertools

import numpy as np

from interlcm_jax.imaging.cuts import change, find_cuts, thumbnail


def scene(seed, count, speed=0):
    """Blurry shapes that move by so many pixels a frame."""
    y, x = np.mgrid[:72, :128]
    phase = np.random.default_rng(seed).uniform(0.02, 0.12, (3, 2)), np.random.default_rng(seed + 100).uniform(0, 6, 3)
    return [
        np.stack(
            [128 + 100 * np.sin((x + i * speed) * a + y * b + c) for (a, b), c in zip(*phase, strict=True)], -1
        ).astype(np.uint8)
        for i in range(count)
    ]


def cuts(frames):
    small = [thumbnail(frame) for frame in frames]
    changes = [0.0, *(change(a, b) for a, b in itertools.pairwise(small))]
    return np.flatnonzero(find_cuts(np.array(changes))).tolist()


def test_scenes_are_told_apart():
    assert cuts(scene(0, 10) + scene(1, 10) + scene(2, 3)) == [10, 20]
    assert cuts(scene(0, 10, speed=2) + scene(1, 10, speed=2)) == [10]


def test_pans_and_flashes_are_no_cuts():
    assert cuts(scene(0, 20, speed=25)) == []
    lit = scene(0, 12)
    lit[5] = np.clip(lit[5].astype(int) // 2 + 120, 0, 255).astype(np.uint8)
    flash = [
        np.clip(frame.astype(int) + 25 * (i == 5), 0, 255).astype(np.uint8) for i, frame in enumerate(scene(0, 12))
    ]
    assert cuts(flash) == []


def test_one_frame_alone():
    assert cuts(scene(0, 1)) == []
