"""Photos extracted and closed around any restoration: sizes, places, colors, tasks."""

import dataclasses

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage import data

from interlcm_jax.errors import InterLCMError
from interlcm_jax.faces.paste import upscale_photo
from interlcm_jax.imaging.gray import to_gray
from interlcm_jax.imaging.io import Photo
from interlcm_jax.photos.image import (
    RestoreOptions,
    extract_faces,
    paste_back,
    restore_photo,
    side_by_side,
)
from interlcm_jax.photos.search import MAX_ENLARGED
from tests.photos.darkening import CONFIG, SIZE, Darkening, face, finding, sharp_face

SEPIA = np.array([24, 8, 0], np.uint8)


def astronaut(size: int = 256) -> np.ndarray:
    return np.ascontiguousarray(data.astronaut()[: 2 * size : 2, : 2 * size : 2])


def test_an_untouched_face_leaves_the_photo_as_it_is():
    photo, options = astronaut(), RestoreOptions(upscale=1)
    extracted = extract_faces(Photo(photo), CONFIG, options, finding(face(80, 20, SIZE), face(150, 150, SIZE)))
    assert [cut.shape for cut in extracted.faces] == [(SIZE, SIZE, 3)] * 2
    result, faces = paste_back(extracted, extracted.faces, CONFIG, options)
    assert result.shape == photo.shape
    assert np.abs(result.astype(int) - photo).max() <= 3
    assert len(faces) == 2


@pytest.mark.parametrize("upscale", [1, 2, 1.5])
def test_a_changed_face_changes_its_place_and_no_other(upscale):
    photo, options = astronaut(), RestoreOptions(upscale=upscale)
    extracted = extract_faces(Photo(photo), CONFIG, options, finding(face(80, 40, 100, turn=30)))
    before, _ = paste_back(extracted, extracted.faces, CONFIG, options)
    after, _ = paste_back(extracted, [255 - extracted.faces[0]], CONFIG, options)
    assert after.shape == (256 * upscale, 256 * upscale, 3)
    changed = np.argwhere((after != before).any(axis=-1)) / upscale
    assert np.abs(changed.mean(axis=0) - [90, 130]).max() < 6
    # Half the diagonal of the turned square.
    assert np.linalg.norm(changed - [90, 130], axis=1).max() < 73


def test_a_small_photo_is_enlarged_first():
    photo = astronaut()[:40, :32]
    extracted = extract_faces(Photo(photo), CONFIG, RestoreOptions(), detector := finding(face(0, 0, SIZE)))
    assert detector.seen[0].shape == (80, SIZE, 3)
    result, _ = paste_back(extracted, extracted.faces, CONFIG, RestoreOptions())
    assert result.shape == (160, 2 * SIZE, 3)


@pytest.mark.parametrize("shape", [(1, 4000), (3, 20_000), (8, 8), (1, 1)])
def test_thin_and_tiny_photos_stay_within_bounds(shape):
    detector = finding()
    extracted = extract_faces(Photo(np.zeros((*shape, 3), np.uint8)), CONFIG, RestoreOptions(), detector)
    assert extracted.faces == []
    assert max(detector.seen[0].shape) <= max(MAX_ENLARGED, *shape)


def test_faces_too_small_to_restore_are_left_out():
    detector = finding(face(10, 10, 18), face(50, 50, 40))
    assert len(extract_faces(Photo(astronaut()), CONFIG, RestoreOptions(), detector).faces) == 1


def test_only_some_of_the_faces():
    detector = finding(face(0, 0, 60), face(100, 100, 60), face(190, 0, 60))

    def middles(**options):
        extracted = extract_faces(Photo(astronaut()), CONFIG, RestoreOptions(**options), detector)
        return [cv2.invertAffineTransform(matrix) @ [SIZE / 2, SIZE / 2, 1] for matrix in extracted.matrices]

    np.testing.assert_allclose(middles(faces="center"), [[130, 130]], atol=1)
    np.testing.assert_allclose(middles(faces="2,0"), [[30, 30], [220, 30]], atol=1)
    assert len(middles(max_faces=2)) == 2
    assert middles(min_face=61) == []
    assert extract_faces(Photo(astronaut()), CONFIG, RestoreOptions(faces="center"), finding()).faces == []


def test_a_face_that_a_photo_lacks_is_named_with_the_file(tmp_path):
    Image.fromarray(astronaut()).save(tmp_path / "a.png")
    options, detector = RestoreOptions(faces="0,2"), finding(face(80, 20, SIZE), face(150, 20, SIZE))
    with pytest.raises(InterLCMError, match=r"a\.png: there is no face 2: the photo has 2 faces, numbered 0 to 1"):
        extract_faces(tmp_path / "a.png", CONFIG, options, detector)


def test_the_smallest_face_is_in_pixels_of_a_photo_that_is_enlarged():
    detector = finding(face(0, 0, SIZE))  # 32 pixels of the photo
    for least, count in ((32, 1), (33, 0)):
        extracted = extract_faces(Photo(astronaut()[:40, :32]), CONFIG, RestoreOptions(min_face=least), detector)
        assert len(extracted.faces) == count


def test_a_parser_keeps_what_is_no_face():
    photo, options = astronaut(), RestoreOptions(upscale=1)
    extracted = extract_faces(Photo(photo), CONFIG, options, finding(face(80, 20, SIZE)))
    dark = [np.zeros_like(extracted.faces[0])]
    nothing, _ = paste_back(extracted, dark, CONFIG, options, lambda faces: np.zeros(faces.shape[:3], np.float32))
    np.testing.assert_array_equal(nothing, photo)
    everything, _ = paste_back(extracted, dark, CONFIG, options, lambda faces: np.ones(faces.shape[:3], np.float32))
    assert everything[20 + SIZE // 2, 80 + SIZE // 2].max() == 0


def test_an_aligned_face_is_the_whole_image():
    options = RestoreOptions(aligned=True)
    extracted = extract_faces(Photo(astronaut()), CONFIG, options, None)
    assert [cut.shape for cut in extracted.faces] == [(SIZE, SIZE, 3)]
    result, [pasted] = paste_back(extracted, [255 - extracted.faces[0]], CONFIG, options)
    np.testing.assert_array_equal(result, 255 - extracted.faces[0])
    np.testing.assert_array_equal(pasted, result)


def restored_colors(photo: np.ndarray, gray: str, task: str = "restoration") -> tuple[np.ndarray, np.ndarray]:
    """What the networks saw and what came out, when they turn all they see red."""
    config, options = dataclasses.replace(CONFIG, task=task), RestoreOptions(aligned=True, gray=gray)
    extracted = extract_faces(Photo(photo), config, options, None)
    red = np.broadcast_to(np.array([180, 60, 60], np.uint8), extracted.faces[0].shape)
    return extracted.faces[0], paste_back(extracted, [red], config, options)[0].astype(int)


@pytest.mark.parametrize(
    ("gray", "kind", "kept"),
    [
        ("auto", "plain", True),
        ("auto", "sepia", True),
        ("auto", "color", False),
        ("keep", "color", True),
        ("color", "plain", False),
    ],
)
def test_whose_colors_the_result_has(gray, kind, kept):
    plain = to_gray(np.clip(astronaut(), 0, 200))
    photo = {"plain": plain, "sepia": plain + SEPIA, "color": astronaut()}[kind]
    seen, result = restored_colors(photo, gray)
    differences = (result[..., 0] - result[..., 2], seen[..., 0].astype(int) - seen[..., 2])
    if kept:
        clipped = ((result == 0) | (result == 255)).any(axis=-1)
        assert np.abs(differences[0] - differences[1])[~clipped].max() <= 1
    else:
        assert (differences[0] == 120).all()


def test_colorization_sees_gray_and_gives_colors():
    plain = to_gray(astronaut())
    for photo in (plain, astronaut()):
        seen, result = restored_colors(photo, "auto", "colorization")
        assert np.ptp(seen, axis=-1).max() == 0
        assert (result[..., 0] - result[..., 2] == 120).all()


def test_side_by_side():
    sheet = side_by_side(np.zeros((4, 6, 3), np.uint8), np.full((8, 12, 3), 9, np.uint8))
    assert sheet.shape == (8, 24, 3)
    assert (sheet[:, :12].max(), sheet[:, 12:].min()) == (0, 9)


@pytest.mark.parametrize(
    "wrong",
    [{"gray": "sepia"}, {"leave_sharp": "on"}, {"leave_sharp": -1}, {"leave_sharp": float("nan")}]
    + [{"upscale": factor} for factor in (0.5, 100, float("nan"))],
)
def test_options_that_do_not_exist(wrong):
    with pytest.raises(InterLCMError, match=next(iter(wrong))):
        RestoreOptions(**wrong)


SHARP = dataclasses.replace(CONFIG, leave_sharp=0.17)


@pytest.mark.parametrize(
    ("config", "leave_sharp", "left"),
    [(SHARP, "auto", True), (SHARP, "off", False), (CONFIG, "auto", False), (CONFIG, 0.2, True), (SHARP, 50, False)]
    + [(dataclasses.replace(SHARP, task=task), 0.1, False) for task in ("inpainting", "colorization")],
)
def test_faces_sharper_than_the_model_draws_stay_as_they_are(config, leave_sharp, left):
    lines = sharp_face()
    photo = np.concatenate([lines, cv2.GaussianBlur(lines, (0, 0), 4)], axis=1)
    options = RestoreOptions(upscale=1, leave_sharp=leave_sharp)
    detector = finding(face(0, 0, SIZE), face(SIZE, 0, SIZE))
    extracted = extract_faces(Photo(photo), config, options, detector)
    assert (len(extracted.faces), len(extracted.left)) == ((1, 1) if left else (2, 0))
    result, faces = paste_back(extracted, [cut // 2 for cut in extracted.faces], config, options)
    assert len(faces) == len(extracted.faces)
    assert (result[:, :SIZE] == photo[:, :SIZE]).all() == left
    assert (result[:, SIZE:] != photo[:, SIZE:]).any()
    # One face alone, aligned: the same.
    options = dataclasses.replace(options, aligned=True)
    extracted = extract_faces(Photo(lines), config, options, None)
    assert (len(extracted.faces), len(extracted.left)) == ((0, 1) if left else (1, 0))
    result, faces = paste_back(extracted, [cut // 2 for cut in extracted.faces], config, options)
    assert (result == lines).all() == left


def test_one_photo_at_once():
    photo, model, options = astronaut(), Darkening(), RestoreOptions(upscale=1)
    result = restore_photo(model, Photo(photo), options, finding(face(80, 20, SIZE)), batch_size=2, seed=7)
    # From the eyes to the mouth: around the face only what the restoration leaves alike is pasted.
    place = np.s_[20 + SIZE // 2 : 20 + SIZE * 3 // 4, 80 + SIZE * 3 // 8 : 80 + SIZE * 5 // 8]
    assert np.abs(result[place].astype(int) - photo[place] // 2).max() <= 3
    assert model.options == [{"batch_size": 2, "seed": 7}]


def test_one_photo_without_a_face_and_the_detector_that_is_there():
    brick = data.brick()[::2, ::2, None].repeat(3, -1)
    for parser in (None, lambda faces: np.ones(faces.shape[:3], np.float32)):
        result = restore_photo(Darkening(), Photo(brick), RestoreOptions(upscale=2), parser=parser)
        np.testing.assert_array_equal(result, upscale_photo(brick, 2))


def test_one_photo_that_is_not_finite():
    with pytest.raises(InterLCMError, match="NaN or infinity"):
        restore_photo(Darkening(lambda face: None), Photo(astronaut()), RestoreOptions(aligned=True))
