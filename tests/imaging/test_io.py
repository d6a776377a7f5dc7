"""Image files of every kind a user may have, as uint8 RGB."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from interlcm_jax.errors import InterLCMError
from interlcm_jax.imaging.io import SUFFIXES, fit_square, read_image, read_photo, write_image
from tests.imaging.odd_images import gradient, gray_profile, srgb_profile

RED = np.full((5, 7, 3), (200, 20, 40), np.uint8)
ORIENTATION = 0x0112


def palette(transparency=None):
    image = Image.new("P", (7, 5), 3)
    image.putpalette([0, 0, 0] * 3 + [200, 20, 40])
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("rgb.png", Image.fromarray(RED)),
        ("rgb.bmp", Image.fromarray(RED)),
        ("rgb.TIFF", Image.fromarray(RED)),
        ("alpha.png", Image.fromarray(np.dstack([RED, np.zeros((5, 7), np.uint8)]))),
        ("palette.png", palette()),
        ("with spaces and ünïcødé 人.png", Image.fromarray(RED)),
    ],
)
def test_color_images(tmp_path, name, image):
    image.save(tmp_path / name)
    np.testing.assert_array_equal(read_image(tmp_path / name), RED)


@pytest.mark.parametrize(("name", "most"), [("a.jpg", 3), ("a.webp", 8)])
def test_lossy_images(tmp_path, name, most):
    Image.fromarray(gradient()).save(tmp_path / name, quality=95)
    difference = read_image(tmp_path / name).astype(int) - gradient()
    assert np.abs(difference).mean() < most


@pytest.mark.parametrize(
    ("mode", "value", "expected"), [("L", 128, 128), ("1", 1, 255), ("I;16", 32896, 128), ("I;16", 65535, 255)]
)
@pytest.mark.parametrize("name", ["gray.png", "gray.tif"])
def test_gray_images_of_any_depth(tmp_path, name, mode, value, expected):
    Image.new(mode, (7, 5), value).save(tmp_path / name)
    photo = read_photo(tmp_path / name)
    np.testing.assert_array_equal(photo.pixels, np.full((5, 7, 3), expected))
    assert photo.gray
    assert photo.alpha is None


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bits_a_channel_become_8(tmp_path, suffix, channels):
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    wide = np.dstack([levels, levels[::-1], levels.T, levels[:, ::-1]])[:, :, :channels].squeeze()
    (tmp_path / f"wide{suffix}").write_bytes(cv2.imencode(suffix, wide)[1].tobytes())
    photo = read_photo(tmp_path / f"wide{suffix}")
    expected = np.atleast_3d(wide)[:, :, [2, 1, 0] if channels > 1 else [0, 0, 0]] / 257
    # Pillow keeps the high byte of colors: one level at most, and as often up as down.
    assert np.abs(photo.pixels - expected).max() <= (0.5 if channels == 1 else 1)
    assert np.abs((photo.pixels - expected).mean()) < 0.01
    if channels == 4:
        assert np.abs(photo.alpha - wide[:, :, 3] / 257).max() <= 1


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_too_wide_to_know_their_range_are_refused(tmp_path, mode):
    Image.new(mode, (7, 5), 1).save(tmp_path / "wide.tif")
    with pytest.raises(InterLCMError, match=r"wide\.tif: can't be read as an image \(32 bits a pixel"):
        read_image(tmp_path / "wide.tif")


@pytest.mark.parametrize(
    ("image", "alpha", "gray"),
    [
        (Image.fromarray(np.dstack([RED, np.full((5, 7), 77, np.uint8)])), 77, False),
        (Image.merge("LA", [Image.new("L", (7, 5), 60), Image.new("L", (7, 5), 77)]), 77, True),
        (palette(transparency=3), 0, False),
        (palette(transparency=bytes([0, 0, 0, 77])), 77, False),
        (palette(), None, False),
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_transparency_is_kept_apart(tmp_path, image, alpha, gray, suffix):
    if suffix != ".png" and image.mode == "P":
        image = image.convert("RGBA" if alpha is not None else "RGB")
    image.save(tmp_path / f"a{suffix}", lossless=True, exact=True)
    photo = read_photo(tmp_path / f"a{suffix}")
    assert photo.gray == (gray and suffix != ".webp")  # WebP has no gray
    np.testing.assert_array_equal(photo.pixels, np.full((5, 7, 3), 60) if gray else RED)
    assert (photo.alpha is None) == (alpha is None)
    if alpha is not None:
        np.testing.assert_array_equal(photo.alpha, np.full((5, 7), alpha))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_photos_are_turned_upright(tmp_path, suffix, orientation):
    # How the camera stored the upright picture; EXIF 2.3, table 6.
    stored = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: np.rot90(p, 1),
        7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
        8: lambda p: np.rot90(p, -1),
    }[orientation](gradient())
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"photo{suffix}", exif=exif, quality=95)
    upright = read_image(tmp_path / f"photo{suffix}")
    assert upright.shape == gradient().shape
    assert np.abs(upright.astype(int) - gradient()).mean() < 8


def test_cmyk_without_a_profile(tmp_path):
    Image.fromarray(RED).convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    photo = read_photo(tmp_path / "print.jpg")
    assert np.abs(photo.pixels.astype(int) - RED).max() < 5
    assert photo.metadata.icc is None


def test_colors_stay_in_the_profile_of_the_file(tmp_path):
    Image.fromarray(gradient()).save(tmp_path / "wide.png", icc_profile=srgb_profile())
    photo = read_photo(tmp_path / "wide.png")
    np.testing.assert_array_equal(photo.pixels, gradient())
    assert photo.metadata.icc is not None
    assert ImageCms.getProfileName(ImageCms.ImageCmsProfile(io.BytesIO(photo.metadata.icc))).startswith("sRGB")


@pytest.mark.parametrize(("mode", "suffix"), [("L", ".png"), ("LA", ".png"), ("L", ".jpg"), ("I;16", ".tif")])
def test_gray_with_a_gray_profile_becomes_srgb(tmp_path, mode, suffix):
    # Half of the light in linear gray is 188 in sRGB.
    image = Image.new(mode, (7, 5), {"L": 128, "LA": (128, 255), "I;16": 128 * 257}[mode])
    image.save(tmp_path / f"linear{suffix}", icc_profile=gray_profile(gamma=1.0))
    photo = read_photo(tmp_path / f"linear{suffix}")
    assert np.abs(photo.pixels.astype(int) - 188).max() <= 2
    assert photo.gray
    assert photo.metadata.icc is None


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "L"])
# Named: a profile holds the second it was made in, and the workers of pytest-xdist must find tests of the same names.
@pytest.mark.parametrize(
    "icc", [b"no profile at all", gray_profile()[:100], srgb_profile()[:-500]], ids=["text", "short", "cut"]
)
def test_corrupt_profiles_are_ignored(tmp_path, mode, icc):
    Image.fromarray(RED).convert(mode).save(tmp_path / "a.tif", icc_profile=icc)
    photo = read_photo(tmp_path / "a.tif")
    np.testing.assert_array_equal(photo.pixels, np.asarray(Image.fromarray(RED).convert(mode).convert("RGB")))
    assert photo.metadata.icc is None


def test_a_profile_of_other_colors_than_the_file_has_is_ignored(tmp_path):
    Image.fromarray(RED).save(tmp_path / "a.png", icc_profile=gray_profile())
    photo = read_photo(tmp_path / "a.png")
    np.testing.assert_array_equal(photo.pixels, RED)
    assert photo.metadata.icc is None


@pytest.mark.parametrize("suffix", [".png", ".webp", ".gif", ".tif"])
def test_the_first_of_several_pictures_is_read(tmp_path, suffix):
    frames = [Image.fromarray(RED), Image.fromarray(255 - RED)]
    options = {"lossless": True} if suffix == ".webp" else {}
    frames[0].save(tmp_path / f"film{suffix}", save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(read_image(tmp_path / f"film{suffix}"), RED)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (1, 1), (1, 300), (300, 2)])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_any_shape(tmp_path, suffix, height, width):
    write_image(tmp_path / f"a{suffix}", np.full((height, width, 3), 50, np.uint8))
    pixels = read_image(tmp_path / f"a{suffix}")
    assert pixels.shape == (height, width, 3)
    assert np.abs(pixels.astype(int) - 50).max() <= 2


def test_faces_of_the_right_size_are_kept_and_others_resized():
    face = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    assert fit_square(face, 8) is face
    assert fit_square(RED, 8).shape == (8, 8, 3)
    assert (fit_square(RED, 8) == RED[0, 0]).all()
