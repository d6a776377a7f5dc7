"""Files as phones and cameras write them, headers that lie, and what is no file."""

import io
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin
from PIL.PngImagePlugin import PngInfo

from interlcm_jax.data.images import check_header
from interlcm_jax.errors import InterLCMError
from interlcm_jax.imaging.io import read_photo, write_photo
from tests.imaging.odd_images import gradient, srgb_profile

# 96 x 64 pixels, to be turned by 90 degrees, with a description.
PHONE = Path(__file__).parent / "gradient.heic"


@pytest.mark.parametrize(
    ("suffix", "options", "most"), [(".avif", {"quality": 95}, 8), (".jp2", {}, 0), (".gif", {}, 60)]
)
def test_formats_beside_the_usual(tmp_path, suffix, options, most):
    Image.fromarray(gradient(48, 64)).save(tmp_path / f"a{suffix}", **options)
    pixels = read_photo(tmp_path / f"a{suffix}").pixels
    assert np.abs(pixels.astype(int) - gradient(48, 64)).max() <= most
    assert pixels.shape == (48, 64, 3)


def test_heic_is_turned_once_and_keeps_its_exif(tmp_path):
    photo = read_photo(PHONE)
    assert np.abs(photo.pixels.astype(int) - np.rot90(gradient(64, 96), -1)).mean() < 4
    write_photo(tmp_path / "a.png", photo.pixels, photo)
    again = read_photo(tmp_path / "a.png")
    np.testing.assert_array_equal(again.pixels, photo.pixels)
    with Image.open(tmp_path / "a.png") as image:
        assert image.getexif()[ExifTags.Base.ImageDescription] == "A photo"


def test_heic_under_another_name(tmp_path):
    # As programs that send photos on name them.
    (tmp_path / "photo.jpg").write_bytes(PHONE.read_bytes())
    assert read_photo(tmp_path / "photo.jpg").pixels.shape == (96, 64, 3)


@pytest.mark.parametrize("part", [0.02, 0.2, 0.5, 0.99])
def test_a_truncated_heic(tmp_path, part):
    data = PHONE.read_bytes()
    (tmp_path / "a.heic").write_bytes(data[: int(part * len(data))])
    with pytest.raises(InterLCMError, match=r"a\.heic: "):
        read_photo(tmp_path / "a.heic")


@pytest.mark.parametrize("kind", [b"\xffxif", b"Ex\xe9f", b"Exi\xa7"])
def test_a_heic_with_an_item_of_an_unknown_kind_is_refused(tmp_path, kind):
    (tmp_path / "a.heic").write_bytes(PHONE.read_bytes().replace(b"\0\0Exif", b"\0\0" + kind, 1))
    with pytest.raises(InterLCMError, match=r"a\.heic: .*\(an item of the unknown kind"):
        read_photo(tmp_path / "a.heic")


def test_decoders_are_imported_only_where_such_a_file_is_met(tmp_path):
    names = [str(tmp_path / "a.jpg"), str(tmp_path / "a.png")]
    for name in names:
        Image.fromarray(gradient()).save(name)
    program = "import sys; from interlcm_jax.imaging.io import read_photo; [read_photo(name) for name in sys.argv[1:]]"
    program += "; assert not sys.modules.keys() & {'pi_heif', 'PIL.AvifImagePlugin', 'PIL.PcdImagePlugin'}"
    subprocess.run([sys.executable, "-c", program, *names], check=True, timeout=60)


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


def test_a_jpeg_within_a_tiff_is_bounded_too(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(gradient(40, 56)).save(stream, "TIFF", compression="jpeg")
    data = bytearray(stream.getvalue())
    order = "<" if data[:2] == b"II" else ">"
    for tag, side in ((256, 56), (257, 40)):
        struct.pack_into(f"{order}H", data, data.index(struct.pack(f"{order}HHIH", tag, 3, 1, side)) + 8, 15_000)
    (tmp_path / "liar.tif").write_bytes(data)
    with pytest.raises(InterLCMError, match="the header claims 15000 x 15000 pixels"):
        read_photo(tmp_path / "liar.tif")


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


def test_a_png_is_read_however_large_its_profile_and_texts_are(tmp_path):
    profile = bytearray(srgb_profile()) + os.urandom(3_000_000)
    profile[:4] = struct.pack(">I", len(profile))
    info, limit = PngInfo(), PngImagePlugin.MAX_TEXT_CHUNK
    info.add_text("packed", "x" * 3_000_000, zip=True)
    info.add_itxt("kept", "a text", zip=True)
    Image.fromarray(gradient()).save(tmp_path / "a.png", icc_profile=bytes(profile), pnginfo=info)
    photo = read_photo(tmp_path / "a.png")
    assert np.abs(photo.pixels.astype(int) - gradient()).max() <= 2
    assert photo.metadata.text == (("kept", "a text"),)
    assert limit == PngImagePlugin.MAX_TEXT_CHUNK
