"""Files as phones and cameras write them, headers that lie, and what is no file."""

import io
import os
import struct

import numpy as np
import pi_heif
import pytest
from PIL import Image, TiffImagePlugin
from PIL.PngImagePlugin import PngInfo

from interlcm_jax.data.images import check_header
from interlcm_jax.errors import InterLCMError
from interlcm_jax.imaging.io import read_photo, write_photo
from tests.imaging.odd_images import gradient, srgb_profile


@pytest.mark.parametrize(
    ("suffix", "options", "most"), [(".avif", {"quality": 95}, 8), (".jp2", {}, 0), (".gif", {}, 60)]
)
def test_formats_beside_the_usual(tmp_path, suffix, options, most):
    Image.fromarray(gradient(48, 64)).save(tmp_path / f"a{suffix}", **options)
    pixels = read_photo(tmp_path / f"a{suffix}").pixels
    assert np.abs(pixels.astype(int) - gradient(48, 64)).max() <= most
    assert pixels.shape == (48, 64, 3)


def test_heic_is_read_by_its_content(tmp_path, monkeypatch):
    # Nothing here writes HEIC: the file has the brand of one, and its decoder is stood in for.
    opened = []

    def register():
        opened.append(True)
        Image.register_open("HEIF", Whole, lambda prefix: prefix[4:8] == b"ftyp" and prefix[8:12] == b"heic")

    monkeypatch.setattr(pi_heif, "register_heif_opener", register)
    monkeypatch.setitem(Image.OPEN, "HEIF", (Whole, None))
    data = struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"heic", 0, b"mif1", b"heic")
    (tmp_path / "IMG_0001.HEIC").write_bytes(data)
    assert read_photo(tmp_path / "IMG_0001.HEIC").pixels.shape == (4, 6, 3)
    assert opened


class Whole(Image.Image):
    """An opened image, as a plugin gives it."""

    def __init__(self, stream=None, name=None):
        super().__init__()
        self.format = "HEIF"
        other = Image.new("RGB", (6, 4))
        self.im, self._mode, self._size = other.im, other.mode, other.size


@pytest.mark.parametrize("kind", ["full", "reduced alone", "wrong type"])
def test_the_full_page_of_a_tiff_comes_before_its_reduced_copy(tmp_path, kind):
    small, large = Image.fromarray(gradient()[::4, ::4].copy()), Image.fromarray(gradient())
    info = TiffImagePlugin.ImageFileDirectory_v2()
    if kind == "wrong type":
        info[254], info.tagtype[254] = "reduced", 2
    else:
        info[254] = 1
    large.encoderinfo = {"tiffinfo": {254: 0}}
    pages = [] if kind == "reduced alone" else [large]
    small.save(tmp_path / "a.tif", tiffinfo=info, save_all=True, append_images=pages)
    expected = gradient() if kind == "full" else np.asarray(small)
    np.testing.assert_array_equal(read_photo(tmp_path / "a.tif").pixels, expected)


@pytest.mark.parametrize("read", [read_photo, check_header])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_only_files_are_read(tmp_path, read, kind):
    path = tmp_path / "endless.png"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(InterLCMError, match=r"endless\.png: a pipe or device, not a file"):
        read(path)


def test_a_header_that_claims_more_than_its_bytes_hold_is_refused_before_they_are_read(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(gradient()).save(stream, "JPEG")
    data = bytearray(stream.getvalue())
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", 15_000, 16_000)
    (tmp_path / "liar.jpg").write_bytes(data)
    with pytest.raises(InterLCMError, match=r"the header claims 16000 x 15000 pixels, which \d+ bytes can't hold"):
        read_photo(tmp_path / "liar.jpg")


@pytest.mark.parametrize("target", [".png", ".jpg", ".tif", ".webp", ".bmp"])
@pytest.mark.parametrize("what", ["profile", "text", "resolution", "damaged profile"])
def test_what_is_written_is_read(tmp_path, target, what):
    """However large or senseless what the file carries beside its pixels is."""
    source, picture = tmp_path / "in.png", Image.fromarray(gradient())
    if what == "profile":
        # Bytes that the table of the profile doesn't point to make it large.
        profile = bytearray(srgb_profile()) + os.urandom(3_000_000)
        profile[:4] = struct.pack(">I", len(profile))
        source = tmp_path / "in.jpg"
        picture.save(source, quality=95, subsampling=0, icc_profile=bytes(profile))
    elif what == "damaged profile":
        profile = bytearray(srgb_profile())
        profile[16:20] = b"\xff\xfe\x00\x01"
        picture.save(source, icc_profile=bytes(profile))
    elif what == "text":
        text = "x" * 900_000
        info = PngInfo()
        for number in range(3):
            info.add_text(f"text{number}", text, zip=True)
        picture.save(source, pnginfo=info)
    else:
        source = tmp_path / "in.tif"
        info = TiffImagePlugin.ImageFileDirectory_v2()
        info[282], info[283] = TiffImagePlugin.IFDRational(0, 0), TiffImagePlugin.IFDRational(0, 0)
        picture.save(source, tiffinfo=info)
    photo = read_photo(source)
    write_photo(tmp_path / f"out{target}", photo.pixels, photo)
    again = read_photo(tmp_path / f"out{target}").pixels
    assert np.abs(again.astype(int) - photo.pixels).max() <= (0 if target in (".png", ".tif", ".bmp") else 30)
