"""Restored faces back in their photo: at their place, without a seam, and nothing else touched."""

import cv2
import numpy as np
import pytest
from skimage import data

from interlcm_jax.faces.paste import paste_faces, upscale_photo

SIZE = 512
# What alignment fills a crop with beyond the photo.
FILLING = (135, 133, 132)


def matrix(center, side, degrees=0.0):
    """From the photo to a face whose square there has this center, side and turn."""
    to_photo = cv2.getRotationMatrix2D((0, 0), degrees, side / SIZE)
    to_photo[:, 2] = center - to_photo[:, :2] @ np.full(2, (SIZE - 1) / 2)
    return cv2.invertAffineTransform(to_photo)


def aligned(photo, face):
    return cv2.warpAffine(photo, face, (SIZE, SIZE), borderValue=FILLING)


def square(shape, face, upscale=1.0, larger=0.0):
    """Which pixels of a photo lie in the face's square, made larger by some pixels of the photo."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    x, y = ((v + 0.5) / upscale - 0.5 for v in (x, y))
    u, v = (row[0] * x + row[1] * y + row[2] for row in face)
    margin = 0.5 + larger / upscale * np.sqrt(np.linalg.det(face[:, :2]))
    return (np.minimum(u, v) >= -margin) & (np.maximum(u, v) <= SIZE - 1 + margin)


@pytest.mark.parametrize(("side", "degrees"), [(512, 0), (300, 20), (90, -35), (800, 10)])
def test_a_crop_pasted_back_leaves_the_photo(side, degrees):
    smooth = cv2.GaussianBlur(data.astronaut(), (0, 0), 4 * max(1, side / SIZE))
    photo = cv2.copyMakeBorder(smooth, *[300] * 4, cv2.BORDER_REFLECT)
    face = matrix((560, 540), side, degrees)
    pasted = paste_faces(photo, [aligned(photo, face)], [face])
    difference = np.abs(pasted.astype(int) - photo)
    assert difference.max() <= 2
    assert difference.mean() < 0.1


@pytest.mark.parametrize("upscale", [1, 2, 1.7])
@pytest.mark.parametrize(("side", "degrees"), [(200, 0), (150, 33), (40, 5), (700, -80)])
def test_beyond_the_square_not_a_bit_changes(side, degrees, upscale):
    photo = upscale_photo(np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8), upscale)
    before = photo.copy()
    face = matrix((180, 90), side, degrees)
    pasted = paste_faces(photo, [np.zeros((SIZE, SIZE, 3), np.uint8)], [face], upscale)
    np.testing.assert_array_equal(photo, before)
    outside = ~square(photo.shape, face, upscale, larger=1)
    np.testing.assert_array_equal(pasted[outside], photo[outside])
    middle = square(photo.shape, face, upscale, larger=-0.16 * side * upscale)
    assert middle.any()
    assert pasted[middle].max() == 0
    assert paste_faces(photo, [np.zeros((SIZE, SIZE, 3), np.uint8)], [face], upscale, overwrite=True) is photo
    np.testing.assert_array_equal(photo, pasted)


@pytest.mark.parametrize("upscale", [1, 1.5, 2, 4])
@pytest.mark.parametrize("center", [(100, 80), (0, 0), (199, 30), (100, 165)])
@pytest.mark.parametrize(("side", "degrees"), [(30, 10), (80, 0), (120, 45), (900, -7)])
def test_a_constant_photo_stays_constant_at_its_edges_too(side, degrees, center, upscale):
    photo = np.full((160, 200, 3), (240, 20, 128), np.uint8)
    face = matrix(center, side, degrees)
    large = upscale_photo(photo, upscale)
    np.testing.assert_array_equal(paste_faces(large, [aligned(photo, face)], [face], upscale), large)


def test_a_face_wholly_beyond_the_photo_changes_nothing():
    photo = data.astronaut()
    faces = [matrix(center, 60) for center in ((-100, 50), (50, -100), (700, 50), (50, 700))]
    np.testing.assert_array_equal(paste_faces(photo, [np.zeros((SIZE, SIZE, 3), np.uint8)] * 4, faces), photo)


def spots(height, width):
    """Round spots, whose centers of mass tell where they are to a fraction of a pixel."""
    y, x = np.mgrid[:height, :width]
    image = sum(np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 18) for cx, cy in SPOTS)
    return np.repeat((image * 200).round().astype(np.uint8)[..., None], 3, axis=-1)


SPOTS = ((90, 100), (130, 100), (110, 130), (95, 75), (128, 72))


@pytest.mark.parametrize("upscale", [1, 2, 3, 1.5])
@pytest.mark.parametrize(("side", "degrees"), [(160, 0), (200, 25), (170, -60), (600, 4)])
def test_a_pattern_lands_where_the_upscaled_photo_has_it(side, degrees, upscale):
    photo = spots(200, 220)
    face = matrix((110, 100), side, degrees)
    ground = upscale_photo(photo, upscale)
    pasted = paste_faces(np.zeros_like(ground), [aligned(photo, face)], [face], upscale)
    for spot in SPOTS:
        center = (np.array(spot) + 0.5) * upscale - 0.5
        assert centroid(ground, center, upscale) == pytest.approx(center, abs=0.05)
        assert centroid(pasted, center, upscale) == pytest.approx(center, abs=0.1)


def centroid(image, center, upscale):
    reach = int(10 * upscale)
    left, top = (round(c) - reach for c in center)
    window = image[top : top + 2 * reach + 1, left : left + 2 * reach + 1, 0].astype(float)
    y, x = np.mgrid[: window.shape[0], : window.shape[1]]
    return [left + (x * window).sum() / window.sum(), top + (y * window).sum() / window.sum()]


def test_the_mask_is_smooth_and_full_in_the_middle():
    ground = np.zeros((600, 600, 3), np.uint8)
    face = matrix((300, 300), 400, 0)
    opacity = paste_faces(ground, [np.full((SIZE, SIZE, 3), 255, np.uint8)], [face])[..., 0].astype(int)
    assert (opacity[165:435, 165:435] == 255).all()
    assert np.abs(np.diff(opacity[300])).max() <= 255 * 0.03
    # It follows the square root of the area: half as wide for a face of half the side.
    half = paste_faces(ground, [np.full((SIZE, SIZE, 3), 255, np.uint8)], [matrix((300, 300), 200)])[..., 0]
    widths = [((row > 5) & (row < 250)).sum() / 2 for row in (opacity[300], half[300])]
    assert widths[0] == pytest.approx(2 * widths[1], rel=0.1)


def test_a_face_a_few_levels_off_leaves_no_step():
    ground = np.full((700, 700, 3), 150, np.uint8)
    face = matrix((350, 350), 512, 15)
    pasted = paste_faces(ground, [np.full((SIZE, SIZE, 3), 156, np.uint8)], [face])[..., 0].astype(int)
    for axis in (0, 1):
        assert np.abs(np.diff(pasted, axis=axis)).max() <= 1
        # Not more than a level in five pixels.
        apart = pasted[5:] - pasted[:-5] if axis == 0 else pasted[:, 5:] - pasted[:, :-5]
        assert np.abs(apart).max() <= 1


def test_overlapping_faces_blend_into_each_other():
    ground = np.full((400, 600, 3), 150, np.uint8)
    faces = [matrix((220, 200), 260, 5), matrix((380, 210), 260, -10)]
    values = [np.full((SIZE, SIZE, 3), level, np.uint8) for level in (160, 140)]
    pasted = paste_faces(ground, values, faces)[..., 0].astype(int)
    assert pasted[200, 180] == 160
    assert pasted[210, 400] == 140  # the later one lies above
    assert max(np.abs(np.diff(pasted, axis=axis)).max() for axis in (0, 1)) <= 2


@pytest.mark.parametrize("upscale", [1, 2])
def test_face_parsing_keeps_pixels_out(upscale):
    photo = upscale_photo(data.astronaut(), upscale)
    face = matrix((226, 120), 200, 8)
    black = np.zeros((SIZE, SIZE, 3), np.uint8)
    nothing = paste_faces(photo, [black], [face], upscale, [np.zeros((SIZE, SIZE), np.float32)])
    np.testing.assert_array_equal(nothing, photo)
    everything = paste_faces(photo, [black], [face], upscale, [np.ones((SIZE, SIZE))])
    np.testing.assert_array_equal(everything, paste_faces(photo, [black], [face], upscale))
    left = np.zeros((SIZE, SIZE), np.float32)
    left[:, : SIZE // 2] = 1
    half = paste_faces(photo, [black], [face], upscale, [left])
    assert 0.4 < (half != photo).sum() / (everything != photo).sum() < 0.6


def test_a_small_face_is_averaged_and_not_sampled():
    # Lines of one pixel, which sampling every eighth would turn into bands.
    rng = np.random.default_rng(0)
    lines = np.repeat(rng.integers(0, 2, (SIZE, SIZE, 1), np.uint8) * 255, 3, axis=-1)
    stripes = np.zeros((SIZE, SIZE, 3), np.uint8)
    stripes[:, ::2] = 255
    for pattern, deviation in ((stripes, 3), (lines, 30)):
        pasted = paste_faces(np.full((120, 120, 3), 127, np.uint8), [pattern], [matrix((60, 60), 60, 10)])
        middle = pasted[45:75, 45:75].astype(float)
        assert middle.mean() == pytest.approx(127.5, abs=4)
        assert middle.std() < deviation


def test_upscaling_a_photo():
    photo = data.astronaut()[:100, :151]
    assert upscale_photo(photo, 1) is photo
    assert upscale_photo(photo, 2).shape == (200, 302, 3)
    assert upscale_photo(photo, 512 / 100).shape == (512, 773, 3)
    assert upscale_photo(np.zeros((1, 1, 3), np.uint8), 1.2).shape == (1, 1, 3)
    smooth = cv2.GaussianBlur(photo, (0, 0), 2)
    again = cv2.resize(upscale_photo(smooth, 2), (151, 100), interpolation=cv2.INTER_AREA)
    assert np.abs(again.astype(int) - smooth).max() <= 2


def test_as_many_matrices_and_masks_as_faces():
    photo, face = data.astronaut(), np.zeros((SIZE, SIZE, 3), np.uint8)
    with pytest.raises(ValueError, match="zip"):
        paste_faces(photo, [face, face], [matrix((50, 50), 60)])
    with pytest.raises(ValueError, match="zip"):
        paste_faces(photo, [face], [matrix((50, 50), 60)], masks=[np.ones((SIZE, SIZE))] * 2)
    np.testing.assert_array_equal(paste_faces(photo, [], []), photo)
