"""Warps and crops: what is drawn, and what it does to a face."""

import numpy as np
import pytest

from interlcm_jax.data.augment import WarpConfig, draw_crop, draw_warp, warp
from interlcm_jax.data.loader import DataConfig
from interlcm_jax.errors import InterLCMError


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_draws_keep_to_their_ranges_and_reach_them():
    config, middle = WarpConfig(turn=10, scale=0.2, shift=0.1), np.array([31.5, 31.5, 1])
    matrices = np.stack([draw_warp(config, 64, rng(seed)) for seed in range(500)])
    scales = np.hypot(matrices[:, 0, 0], matrices[:, 0, 1])
    turns = np.degrees(np.arctan2(matrices[:, 0, 1], matrices[:, 0, 0]))
    shifts = (matrices @ middle - middle[:2]) / 64
    for values, most in ((scales - 1, 0.2), (turns, 10), (shifts[:, 0], 0.1), (shifts[:, 1], 0.1)):
        assert 0.95 * most < np.abs(values).max() <= most + 1e-9
        assert abs(values.mean()) < 0.1 * most
    assert np.allclose(draw_warp(WarpConfig(), 64, rng()), [[1, 0, 0], [0, 1, 0]])


def test_a_shift_moves_pixels_right_and_down():
    image = np.zeros((16, 16, 3), np.uint8)
    image[4, 5] = 200
    moved = warp(image, np.array([[1.0, 0, 3], [0, 1, 2]]))
    assert moved[6, 8].tolist() == [200] * 3
    assert moved.sum() == image.sum()


def test_crops_reach_every_corner():
    windows = [draw_crop(3, 5, rng(seed)) for seed in range(200)]
    assert {(rows.start, columns.start) for rows, columns in windows} == {(y, x) for y in range(3) for x in range(3)}
    assert all(part.stop - part.start == 3 for window in windows for part in window)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: WarpConfig(turn=180), "data.warp.turn is 180"),
        (lambda: WarpConfig(scale=-0.1), "data.warp.scale is -0.1"),
        (lambda: DataConfig(image_size=64, crop=65), "data.crop is 65, but must be from 1 to data.image_size, 64"),
        (lambda: DataConfig(crop=0), "data.crop is 0"),
        (lambda: DataConfig(channel_permutation=1.5), "data.channel_permutation is 1.5, but must be from 0 to 1"),
    ],
)
def test_what_is_out_of_range_is_named(make, words):
    with pytest.raises(InterLCMError, match=words):
        make()
