import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data

from interlcm_jax.errors import InterLCMError
from interlcm_jax.metrics.niqe import Pristine, fit_pristine, load_pristine, niqe, save_pristine
from interlcm_jax.metrics.niqe_features import block_moments, features, halve, luma, normalize
from tests.metrics import niqe_reference

# A shape of the grid is another one where the ratio of moments lies within rounding of the middle between two.
ONE_SHAPE = 0.001 * (1 + 1e-9)


@functools.cache
def photos() -> tuple[np.ndarray, ...]:
    """Three parts of photos with no even area, of 2 x 3 blocks and some more."""
    parts = (skimage.data.chelsea()[:, 100:], skimage.data.coffee()[150:, 200:], skimage.data.chelsea()[60:])
    return tuple(np.ascontiguousarray(part[:205, :300]) for part in parts)


@functools.cache
def pristine() -> Pristine:
    """Some statistics, of a well-conditioned covariance."""
    rng = np.random.default_rng(0)
    found = np.concatenate([niqe_reference.features(photo)[0] for photo in photos()])
    factor = rng.normal(size=(36, 36)) * found.std(0)[:, None] / 6
    return Pristine(found.mean(0) + 0.3 * found.std(0), factor @ factor.T + np.diag(found.var(0)))


def test_features_are_the_papers():
    ours = features(block_moments(np.stack(photos())))
    theirs = np.stack([niqe_reference.features(photo)[0] for photo in photos()])
    assert ours.shape == theirs.shape == (3, 6, 36)
    shapes = [s + f for s in (0, 18) for f in (0, 2, 6, 10, 14)]
    assert np.abs(ours - theirs)[..., shapes].max() <= ONE_SHAPE
    np.testing.assert_allclose(ours, theirs, rtol=5e-3, atol=1e-4)
    # Where all shapes are the same, and that is nearly everywhere, nothing but float32 lies between the two.
    same = (np.abs(ours - theirs)[..., shapes] < 1e-9).all(-1)
    assert same.mean() > 0.8
    np.testing.assert_allclose(ours[same], theirs[same], rtol=2e-6, atol=2e-7)


def test_distance_is_the_papers():
    wanted = [
        niqe_reference.distance(niqe_reference.features(photo)[0], pristine().mean, pristine().covariance)
        for photo in photos()
    ]
    ours = niqe(np.stack(photos()), pristine())
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, wanted, rtol=5e-6)
    assert np.ptp(wanted) > 0.1


def test_an_image_scores_the_same_in_any_batch():
    together = niqe(np.stack(photos()), pristine())
    alone = [niqe(photo[None], pristine())[0] for photo in photos()]
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_luma_is_bt601s_in_whole_levels():
    colors = np.random.default_rng(0).integers(0, 256, (1, 500, 500, 3), np.uint8)
    exact = 16 + colors @ np.array([65.481, 128.553, 24.966]) / 255
    ours = np.asarray(luma(colors))
    assert np.abs(ours - exact).max() <= 0.5 + 1e-9
    assert ours.min() >= 16
    assert ours.max() <= 235
    assert set(np.unique(ours % 1)) == {0}
    np.testing.assert_array_equal(luma(np.array([[[[0, 0, 0], [255, 255, 255]]]], np.uint8))[0, 0], [16, 235])


def test_halving_is_matlabs():
    x = np.random.default_rng(0).integers(16, 236, (2, 24, 40)).astype(np.float32)
    wanted = niqe_reference.halving(24) @ x.astype(np.float64) @ niqe_reference.halving(40).T
    np.testing.assert_allclose(jax.jit(halve)(jnp.asarray(x)), wanted, atol=2e-5)


def test_even_areas_and_slopes_are_zero_exactly():
    """Else rounding would decide which side of 0 a value is on, and the two sides are counted apart."""
    rows, columns = np.mgrid[:40, :60].astype(np.float32)
    halved = jax.jit(halve)(jnp.full((1, 80, 120), 17.0))[0]
    for x in (np.full((40, 60), 201, np.float32), 16 + 2 * rows + 3 * columns, halved):
        inside = np.asarray(jax.jit(normalize)(jnp.asarray(x)[None])[0])[0, 3:-3, 3:-3]
        np.testing.assert_array_equal(inside, 0)


def test_even_blocks_have_no_statistics_and_dont_count():
    """As in BasicSR: no width, the first shape of the grid; its mean over blocks takes that shape in all the same."""
    photo = photos()[0].copy()
    photo[:, :110] = 90
    found = features(block_moments(photo[None]))[0]
    even = np.isnan(found).any(-1)
    np.testing.assert_array_equal(even, [True, False, False, True, False, False])
    np.testing.assert_array_equal(found[0, [0, 2, 6, 10, 14]], 0.2)
    mean, covariance = np.nanmean(found, axis=0), np.cov(found[~even].T)
    gap = pristine().mean - mean
    wanted = np.sqrt(gap @ np.linalg.inv((pristine().covariance + covariance) / 2) @ gap)
    np.testing.assert_allclose(niqe(photo[None], pristine()), wanted, rtol=1e-9)
    assert np.isnan(niqe(np.full((1, 205, 300, 3), 90, np.uint8), pristine())).all()


LARGE = (skimage.data.astronaut(), skimage.data.coffee())


@functools.cache
def fitted() -> Pristine:
    return fit_pristine(LARGE, sharpness_threshold=0.2)


def test_pristine_statistics_are_those_of_the_sharp_blocks():
    sharp = []
    for photo in LARGE:
        moments = block_moments(photo[None])
        _, wanted = niqe_reference.features(photo)
        np.testing.assert_allclose(np.asarray(moments.sharpness)[0], wanted, rtol=1e-4)
        sharp.append(features(moments)[0][wanted > 0.2 * wanted.max()])
    sharp = np.concatenate(sharp)
    assert 37 <= len(sharp) < 49
    np.testing.assert_allclose(fitted().mean, sharp.mean(0), rtol=1e-12)
    np.testing.assert_allclose(fitted().covariance, np.cov(sharp.T), rtol=1e-9, atol=1e-15)


def test_damage_is_seen():
    photo = LARGE[0]
    noise = np.random.default_rng(0).normal(0, 25, photo.shape)
    noisy = np.clip(photo + noise, 0, 255).astype(np.uint8)
    good, blurred, grainy = (niqe(x[None], fitted())[0] for x in (photo, cv2.GaussianBlur(photo, (0, 0), 3), noisy))
    assert good < 0.5 * min(blurred, grainy)


def test_pristine_statistics_are_kept_in_basicsrs_format(tmp_path):
    path = tmp_path / "pristine.npz"
    save_pristine(path, pristine())
    with np.load(path) as file:
        shapes = {name: file[name].shape for name in file.files}
        window = file["gaussian_window"]
    assert shapes == {"mu_pris_param": (1, 36), "cov_pris_param": (36, 36), "gaussian_window": (7, 7)}
    assert window.sum() == pytest.approx(1)
    assert window[0, 2] / window[3, 3] == pytest.approx(np.exp(-10 / 2 / (7 / 6) ** 2))
    again = load_pristine(path)
    np.testing.assert_array_equal(again.mean, pristine().mean)
    np.testing.assert_array_equal(again.covariance, pristine().covariance)


def test_what_isnt_pristine_statistics_is_refused(tmp_path):
    path = tmp_path / "niqe.npz"
    with pytest.raises(InterLCMError, match=r"no such file.*niqe_pris_params.npz of BasicSR"):
        load_pristine(path)
    path.write_bytes(b"PK nothing")
    with pytest.raises(InterLCMError, match="not a whole"):
        load_pristine(path)
    save_pristine(path, pristine())
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(InterLCMError, match="not a whole"):
        load_pristine(path)
    good = {"mu_pris_param": np.zeros((1, 36)), "cov_pris_param": np.eye(36), "gaussian_window": np.eye(7)}
    for change, message in (
        ({}, "another window"),
        ({"gaussian_window": np.eye(5)}, "instead of NIQE's statistics"),
        ({"mu_pris_param": np.full((1, 36), np.nan)}, "finite and symmetric"),
        ({"cov_pris_param": np.tri(36)}, "finite and symmetric"),
        ({"more": np.eye(2)}, "instead of NIQE's statistics"),
    ):
        np.savez(path, **(good | change))
        with pytest.raises(InterLCMError, match=message):
            load_pristine(path)


@pytest.mark.usefixtures("unchecked")
def test_images_that_cannot_be_scored_are_refused():
    for images in (np.zeros((1, 200, 200, 3), np.float32), np.zeros((200, 200, 3), np.uint8)):
        with pytest.raises(InterLCMError, match="takes uint8 images"):
            niqe(images, pristine())
    with pytest.raises(InterLCMError, match="96 pixels wide"):
        niqe(np.zeros((1, 95, 500, 3), np.uint8), pristine())
    with pytest.raises(InterLCMError, match="two blocks"):
        niqe(np.zeros((1, 191, 100, 3), np.uint8), pristine())
    with pytest.raises(InterLCMError, match="too few"):
        fit_pristine(photos()[:1])
