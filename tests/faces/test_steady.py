"""Places and pictures of a followed face: jitter and noise go, motion and what really changes stay."""

import numpy as np
import pytest

from interlcm_jax.faces.align import alignment
from interlcm_jax.faces.steady import SLOW, smooth, steady_mask, steady_picture, steady_places
from tests.photos.darkening import SIZE, face

END = round(3 * SLOW)
RNG = np.random.default_rng(0)


def test_a_parabola_comes_through_unchanged_but_for_its_ends():
    t = np.arange(60.0)
    values = np.stack([3 * t + 1, 0.1 * t**2 - t], axis=1)
    smoothed = smooth(values, np.ones(60))
    assert np.abs(smoothed[:, 0] - values[:, 0]).max() < 0.1
    assert np.abs(smoothed[END:-END] - values[END:-END]).max() < 0.2


def test_motion_has_no_lag_and_jitter_goes():
    t = np.arange(200)
    motion = 40 * np.sin(t / 15)[:, None]
    noise = RNG.normal(0, 1, (200, 1))
    error = smooth(motion + noise, np.ones(200)) - motion
    assert error.std() < 0.5
    # Shifted by one frame either way, it fits worse.
    now, earlier, later = (np.abs(np.roll(motion, k) - motion - error)[20:-20].mean() for k in (0, 1, -1))
    assert now < earlier
    assert now < later


def test_what_is_not_known_is_made_up_from_its_neighbors():
    t = np.arange(40.0)
    weights = np.where((t > 15) & (t < 22), 0, 1.0)
    values = np.where(weights, 2 * t, 999.0)[:, None]
    assert np.abs(smooth(values, weights)[:, 0] - 2 * t).max() < 0.5


def test_a_face_is_cut_out_steadily():
    count = 40
    true = np.array([face(20 + 3 * i, 30 + i, 70, turn=10 * np.sin(i / 9)).landmarks for i in range(count)])
    seen = true + RNG.normal(0, 0.8, true.shape)
    seen[17] += 25
    found = np.ones(count, bool)
    found[25:30] = False
    matrices, landmarks = steady_places(seen, found, SIZE)
    # What is at the face's middle in the aligned picture: for single frames it jumps about.
    middle = true.mean(1)
    steady = np.einsum("nij,nj->ni", matrices[:, :, :2], middle) + matrices[:, :, 2]
    single = np.array([alignment(points, SIZE) @ [*center, 1] for points, center in zip(seen, middle, strict=True)])
    others = found & (np.arange(count) != 17)
    assert steady.std(0).max() < 0.65 * single[others].std(0).min()
    assert np.abs(landmarks - true).mean() < 0.5
    assert np.abs(landmarks - true)[25:30].mean() < 1.5


def test_a_face_that_nods_fast_is_followed():
    count = 60
    nod = 8 * np.sin(2 * np.pi * np.arange(count) / 10)
    true = np.array([face(40, 40 + shift, 70).landmarks for shift in nod])
    _, landmarks = steady_places(true + RNG.normal(0, 0.3, true.shape), np.ones(count, bool), SIZE)
    assert np.abs(landmarks - true)[5:-5].mean() < 1
    assert np.abs(smooth(true.reshape(count, 10), np.ones(count)).reshape(-1, 5, 2) - true)[..., 1].mean() > 3


def picture(mouth: int = 90) -> np.ndarray:
    image = np.full((64, 64, 3), 120, np.uint8)
    image[40:50, 20:44] = mouth
    return image


def noisy(image, sigma=8):
    return np.clip(np.rint(image + RNG.normal(0, sigma, image.shape)), 0, 255).astype(np.uint8)


def test_noise_goes():
    pictures = [noisy(picture()) for _ in range(9)]
    steady = steady_picture(pictures, 4)
    assert np.std(steady.astype(float) - picture()) < 0.45 * np.std(pictures[4].astype(float) - picture())


@pytest.mark.parametrize("middle", [0, 4, 8])
def test_what_changes_stays_sharp_in_time(middle):
    pictures = [noisy(picture(mouth=200 if i == middle else 90), 4) for i in range(9)]
    steady = steady_picture(pictures, middle)[42:48, 22:42]
    assert np.abs(steady.astype(float).mean() - 200) < 3


def test_one_picture_alone_and_equal_ones_stay_as_they_are():
    image = noisy(picture())
    assert np.array_equal(steady_picture([image], 0), image)
    assert np.array_equal(steady_picture([image] * 5, 2), image)


def test_masks_are_weighted_by_nearness():
    masks = [np.full((4, 4), value, np.float32) for value in (0, 1, 0)]
    steady = steady_mask(masks, 1)
    assert 1 / 3 < steady[0, 0] < 0.5
    assert steady.dtype == np.float32
