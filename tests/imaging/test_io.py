"""Image files of every kind a user may have, as uint8 RGB."""

import numpy as np
import pytest
from PIL import Image

from interlcm_jax.errors import InterLCMError
from interlcm_jax.imaging.io import fit_square, read_image, write_image

RED = np.full((5, 7, 3), (200, 20, 40), np.uint8)


def palette():
    image = Image.new("P", (7, 5), 3)
    image.putpalette([0, 0, 0] * 3 + [200, 20, 40])
    return image


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("rgb.png", Image.fromarray(RED)),
        ("rgb.bmp", Image.fromarray(RED)),
        ("rgb.TIFF", Image.fromarray(RED)),
        ("alpha.png", Image.fromarray(np.dstack([RED, np.zeros((5, 7), np.uint8)]))),
        ("palette.png", palette()),
    ],
)
def test_colour_images(tmp_path, name, image):
    image.save(tmp_path / name)
    np.testing.assert_array_equal(read_image(tmp_path / name), RED)


@pytest.mark.parametrize(
    ("mode", "value", "expected"), [("L", 128, 128), ("1", 1, 255), ("I;16", 32896, 128), ("I;16", 65535, 255)]
)
@pytest.mark.parametrize("name", ["grey.png", "grey.tif"])
def test_grey_images_of_any_depth(tmp_path, name, mode, value, expected):
    Image.new(mode, (7, 5), value).save(tmp_path / name)
    np.testing.assert_array_equal(read_image(tmp_path / name), np.full((5, 7, 3), expected))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_too_wide_to_know_their_range_are_refused(tmp_path, mode):
    Image.new(mode, (7, 5), 1).save(tmp_path / "wide.tif")
    with pytest.raises(InterLCMError, match=r"wide\.tif: can't be read as an image \(32 bits a pixel"):
        read_image(tmp_path / "wide.tif")


def test_photos_are_turned_upright(tmp_path):
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to view
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)
    upright = read_image(tmp_path / "photo.png")
    assert upright.shape == (32, 16, 3)
    assert upright[:16].min() == 255
    assert upright[16:].max() == 0


def test_written_images_are_read_as_they_were(tmp_path):
    write_image(tmp_path / "new" / "folder" / "face.png", RED)
    np.testing.assert_array_equal(read_image(tmp_path / "new" / "folder" / "face.png"), RED)


def test_faces_of_the_right_size_are_kept_and_others_resized():
    face = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    assert fit_square(face, 8) is face
    assert fit_square(RED, 8).shape == (8, 8, 3)
    assert (fit_square(RED, 8) == RED[0, 0]).all()
