"""Photos and faces restored with an upsampler: what it is shown, and what comes of it."""

import cv2
import numpy as np
import pytest
from PIL import Image

from interlcm_jax.errors import InterLCMError
from interlcm_jax.faces.paste import upscale_photo
from interlcm_jax.imaging.io import Photo
from interlcm_jax.photos.files import restore_files
from interlcm_jax.photos.image import RestoreOptions, extract_faces, paste_back, restore_photo
from tests.photos.darkening import CONFIG, SIZE, Darkening, face, finding


def picture(height: int = 200, width: int = 240) -> np.ndarray:
    """Smooth, so that resampling loses little."""
    coarse = np.random.default_rng(0).integers(40, 216, (8, 8, 3), np.uint8)
    return cv2.resize(coarse, (width, height))


class Brightening:
    """An upsampler that adds 30 levels to what bicubic interpolation gives, and keeps what it was shown."""

    def __init__(self):
        self.shown = []

    def __call__(self, photo, factor):
        self.shown.append((photo.shape, factor))
        return upscale_photo(photo, factor) + np.uint8(30)


@pytest.mark.parametrize("upscale", [1, 2, 1.5])
def test_the_photo_is_enlarged_by_it_and_the_faces_pasted_on_that(upscale):
    upsampler, photo = Brightening(), picture()
    options = RestoreOptions(upscale=upscale)
    result = restore_photo(Darkening(), Photo(photo), options, finding(face(70, 50, 100)), upsampler=upsampler)
    assert upsampler.shown == [(photo.shape, upscale)]
    assert result.shape == (round(200 * upscale), round(240 * upscale), 3)
    change = result.astype(int) - upscale_photo(photo, upscale)
    assert (change[: round(40 * upscale)] == 30).all()
    assert change[round(95 * upscale), round(120 * upscale)].max() < 0


def test_it_is_shown_the_pixels_of_the_file():
    """A photo that is smaller than a face is interpolated for the detector; the upsampler needs no such thing."""
    upsampler, photo = Brightening(), picture(40, 33)
    extracted = extract_faces(Photo(photo), CONFIG, RestoreOptions(), finding(face(0, 0, SIZE)))
    height, width = extracted.photo.pixels.shape[:2]
    assert width == SIZE
    result, _ = paste_back(extracted, extracted.faces, CONFIG, RestoreOptions(), None, upsampler)
    assert result.shape == (2 * height, 2 * width, 3)
    assert upsampler.shown == [((40, 33, 3), 2 * height / 40)]


@pytest.mark.parametrize(("side", "factor"), [(SIZE, 2), (3 * SIZE / 2, 3)])
def test_faces_are_enlarged_by_it_too(side, factor):
    """To their size in the result, at their own places: on even ground an untouched face stays where it is."""
    upsampler, photo = Brightening(), picture()
    options = RestoreOptions(upscale=2, upsample_faces=True, leave_sharp="off")
    extracted = extract_faces(Photo(photo), CONFIG, options, finding(face(50, 40, side)))
    result, faces = paste_back(extracted, extracted.faces, CONFIG, options, None, upsampler)
    assert [shown for shown, _ in upsampler.shown] == [photo.shape, (SIZE, SIZE, 3)]
    assert upsampler.shown[1][1] == pytest.approx(factor, rel=1e-3)
    assert faces[0].shape == (SIZE, SIZE, 3)
    # Both grew brighter alike.
    assert np.abs(result.astype(int) - upscale_photo(photo, 2) - 30).max() <= 5


def test_faces_smaller_than_the_models_are_not():
    upsampler, options = Brightening(), RestoreOptions(upscale=1, upsample_faces=True)
    restore_photo(Darkening(), Photo(picture()), options, finding(face(50, 40, SIZE / 2)), upsampler=upsampler)
    assert [shown for shown, _ in upsampler.shown] == [(200, 240, 3)]


def test_masks_of_enlarged_faces():
    """A parser's masks are of the model's size."""
    options = RestoreOptions(upscale=2, upsample_faces=True)
    extracted = extract_faces(Photo(picture()), CONFIG, options, finding(face(50, 40, 100)))

    def left_half(faces):
        mask = np.zeros(faces.shape[:3], np.float32)
        mask[:, :, : SIZE // 2] = 1
        return mask

    black = [np.zeros_like(extracted.faces[0])]
    result, _ = paste_back(extracted, black, CONFIG, options, left_half, upscale_photo)
    assert result[180, 170].max() < 40
    assert np.array_equal(result[180, 230], upscale_photo(picture(), 2)[180, 230])


def test_photos_without_a_face_are_written(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "hills.png")
    outcomes = {}
    for upsampler in (None, Brightening()):
        out = tmp_path / str(upsampler is None)
        [outcome] = restore_files(Darkening(), tmp_path / "hills.png", out, detector=finding(), upsampler=upsampler)
        outcomes[upsampler is None] = (outcome.faces, outcome.left, outcome.enlarged, outcome.error)
    assert outcomes == {True: (0, 0, False, None), False: (0, 0, True, None)}
    assert not (tmp_path / "True" / "hills.png").exists()
    assert np.array_equal(np.asarray(Image.open(tmp_path / "False" / "hills.png")), upscale_photo(picture(), 2) + 30)


def test_enlarged_faces_need_an_upsampler():
    with pytest.raises(InterLCMError, match="upsample_faces is True, but there is no upsampler"):
        restore_photo(Darkening(), Photo(picture()), RestoreOptions(upsample_faces=True), finding())
