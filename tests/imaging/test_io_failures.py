"""Files that can't be read or written: each fails alone, by name, and in words."""

import errno
import io
import re
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from interlcm_jax.errors import InterLCMError
from interlcm_jax.imaging import io as image_io
from interlcm_jax.imaging.io import read_photo, write_photo
from tests.imaging.odd_images import gradient, png_of_size

# The formats and compressions of the wild, by Pillow's names.
KINDS = {
    "a.png": {},
    "a.jpg": {},
    "progressive.jpg": {"progressive": True},
    "lossless.webp": {"lossless": True},
    "lossy.webp": {},
    "a.bmp": {},
    "raw.tif": {},
    "lzw.tif": {"compression": "tiff_lzw"},
    "deflate.tif": {"compression": "tiff_adobe_deflate"},
    "jpeg.tif": {"compression": "jpeg"},
}


@pytest.fixture(params=["error", "ignore"])
def pillow_warnings(request):
    """What happens on a warning: in these tests it is an error, for users it is not."""
    with warnings.catch_warnings():
        warnings.simplefilter(request.param)
        yield


@pytest.mark.usefixtures("pillow_warnings")
@pytest.mark.parametrize("name", KINDS)
def test_truncated_files(tmp_path, name):
    path = tmp_path / name
    noise = np.random.default_rng(0).integers(0, 64, (200, 300, 3), np.uint8)
    Image.fromarray(gradient(200, 300) // 2 + noise).save(path, **KINDS[name])
    data = path.read_bytes()
    for part in (0.001, 0.02, 0.1, 0.5, 0.9, 0.99):
        path.write_bytes(data[: int(part * len(data))])
        with pytest.raises(InterLCMError, match=f"^{re.escape(str(path))}: "):
            read_photo(path)


def test_a_png_without_its_end_has_all_pixels(tmp_path):
    Image.fromarray(gradient()).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:-12])
    np.testing.assert_array_equal(read_photo(tmp_path / "a.png").pixels, gradient())


def make(path, kind):
    """Makes what is no image at `path`."""
    match kind:
        case "a folder":
            path.mkdir()
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("<html>404</html>")
        case "a broken link":
            path.symlink_to(path.parent / "gone.png")
        case "a loop of links":
            path.symlink_to(path)
        case "noise":
            path.write_bytes(np.random.default_rng(0).bytes(5000))
        case "PostScript":
            path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such file"),
        ("a folder", "a folder, not an image"),
        ("empty", "not an image (the file is empty)"),
        (
            "text",
            "not an image (of no format that is read: BMP, GIF, JPEG, PNG, PPM, ",
        ),
        ("a broken link", "no such file"),
        ("a loop of links", "can't be opened (Too many levels of symbolic links)"),
        ("noise", "not an image (of no format"),
        ("PostScript", "not an image (of no format"),
    ],
)
def test_what_is_no_image(tmp_path, kind, message):
    make(tmp_path / "a.png", kind)
    with pytest.raises(InterLCMError) as error:
        read_photo(tmp_path / "a.png")
    assert str(error.value).startswith(f"{tmp_path / 'a.png'}: {message}")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / "a.png").touch()
    monkeypatch.setattr(type(tmp_path), "open", refuse)
    with pytest.raises(InterLCMError, match=r"a\.png: can't be opened \(Permission denied\)"):
        read_photo(tmp_path / "a.png")


def test_pictures_of_too_many_pixels_are_refused_before_they_fill_the_memory(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png_of_size(30_000, 30_000))
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(InterLCMError, match=r"bomb\.png: .*\(30000 x 30000 pixels; up to 250 million are read\)"):
        read_photo(tmp_path / "bomb.png")
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_pictures_over_the_limit_of_pillow_are_read_and_the_limit_stays(tmp_path, monkeypatch, suffix):
    Image.fromarray(gradient()).save(tmp_path / f"large{suffix}")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 32 // 3)
    np.testing.assert_array_equal(read_photo(tmp_path / f"large{suffix}").pixels, gradient())
    assert Image.MAX_IMAGE_PIXELS == 24 * 32 // 3


def test_the_limit_of_pillow_stays_lifted_while_another_reads(tmp_path, monkeypatch):
    for name in ("a.png", "b.png"):
        Image.fromarray(gradient()).save(tmp_path / name)
    opened, limits = Image.open, []

    def reads_another(file, *args, **options):
        monkeypatch.setattr(Image, "open", opened)
        read_photo(tmp_path / "b.png")
        limits.append(Image.MAX_IMAGE_PIXELS)
        return opened(file, *args, **options)

    monkeypatch.setattr(Image, "open", reads_another)
    read_photo(tmp_path / "a.png")
    assert limits == [None]
    assert Image.MAX_IMAGE_PIXELS is not None


def test_the_limit_of_pillow_comes_back_after_the_last_of_many_readers(tmp_path):
    for i in range(16):
        Image.fromarray(gradient() + np.uint8(i)).save(tmp_path / f"{i}.png")
    (tmp_path / "16.png").write_text("text")
    limit = Image.MAX_IMAGE_PIXELS
    together = threading.Barrier(4)

    def read(i):
        if i < 4:
            together.wait(10)
        try:
            return read_photo(tmp_path / f"{i}.png").pixels
        except InterLCMError:
            return None

    with ThreadPoolExecutor(4) as threads:
        photos = list(threads.map(read, range(17)))
    assert limit == Image.MAX_IMAGE_PIXELS
    assert photos[16] is None
    for i in range(16):
        np.testing.assert_array_equal(photos[i], gradient() + np.uint8(i))


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".png", ".tif"])
@pytest.mark.parametrize("exif", [b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12" * 9, b"Exif\0\0nonsense", b"x"])
def test_corrupt_exif_costs_the_exif_only(tmp_path, suffix, exif):
    options = {"tiffinfo": {34665: 5_000_000}} if suffix == ".tif" else {"exif": exif}
    Image.fromarray(gradient()).save(tmp_path / f"a{suffix}", quality=95, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Corrupt EXIF data")
        photo = read_photo(tmp_path / f"a{suffix}")
    assert np.abs(photo.pixels.astype(int) - gradient()).mean() < 8
    assert photo.metadata.exif is None


def test_an_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(InterLCMError, match=r"a\.heic: no image format is called '\.heic'; choose one of \.bmp, "):
        write_photo(tmp_path / "a.heic", gradient())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", image_io.SUFFIXES)
def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, suffix):
    (tmp_path / f"a{suffix}").write_bytes(b"the last result")

    def fill(path, data):
        with path.open("wb") as stream:
            stream.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(tmp_path), "write_bytes", fill)
    with pytest.raises(InterLCMError, match=r"a\..*: can't be written \(No space left on device\)"):
        write_photo(tmp_path / f"a{suffix}", gradient())
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]
    assert (tmp_path / f"a{suffix}").read_bytes() == b"the last result"


@pytest.mark.parametrize(("suffix", "width"), [(".webp", 16_384), (".jpg", 65_501)])
def test_a_picture_too_large_for_its_format(tmp_path, suffix, width):
    with pytest.raises(InterLCMError, match=rf"a\{suffix}: can't be written"):
        write_photo(tmp_path / f"a{suffix}", np.zeros((2, width, 3), np.uint8))
    assert not list(tmp_path.iterdir())


def test_a_folder_in_the_way(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InterLCMError, match="can't be written"):
        write_photo(tmp_path / "file" / "a.png", gradient())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_encoded_pictures_are_what_pillow_reads(tmp_path):
    for suffix in image_io.SUFFIXES:
        write_photo(tmp_path / "deep" / f"a{suffix}", gradient())
        with Image.open(io.BytesIO((tmp_path / "deep" / f"a{suffix}").read_bytes())) as image:
            assert image.size == (32, 24)
            assert Image.registered_extensions()[suffix] == image.format
