"""The benchmark of steadiness: known motion is undone, and only what is not motion counts as flicker."""

import numpy as np
import pytest

from benchmarks.video_flicker import degraded, motion, ratios, scores, sharp_frames
from tests.photos.video.clips import pictures

COUNT = 8


@pytest.fixture(scope="module")
def clip():
    matrices = motion(COUNT)
    return sharp_frames(pictures(1, 256, 256)[0], matrices), matrices


def test_motion_alone_is_no_flicker(clip):
    sharp, matrices = clip
    assert np.abs(sharp[0].astype(int) - sharp[-1]).mean() > 2
    assert scores(sharp, matrices)[0] < 0.5


def test_noise_that_changes_is_flicker_and_blur_takes_sharpness(clip):
    sharp, matrices = clip
    bad = degraded(sharp, 0)
    assert scores(bad, matrices)[0] > 2
    still = [bad[0]] * COUNT
    assert scores(still, [matrices[0]] * COUNT)[0] < 1e-4
    noisy_once = degraded([sharp[0]], 0)
    assert np.array_equal(noisy_once[0], bad[0])


def test_ratios():
    row = {"flicker_tracked": 1, "flicker_one_by_one": 4, "sharpness_tracked": 3, "sharpness_one_by_one": 3}
    assert ratios(row) == {"flicker_ratio": 0.25, "sharpness_ratio": 1}
