"""Small damage is mended and named; half a picture is refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from interlcm_jax.errors import InterLCMError
from interlcm_jax.imaging.io import read_photo
from tests.imaging.odd_images import gradient, srgb_profile


def jpeg(height=96, width=128, **options):
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 60, (height, width, 3), np.uint8)
    Image.fromarray(gradient(height, width) // 2 + noise).save(stream, "JPEG", quality=90, **options)
    return stream.getvalue()


def png(**texts):
    info, stream = PngInfo(), io.BytesIO()
    for key, value in texts.items():
        info.add_text(key, value, zip=value.startswith("zip"))
    Image.fromarray(gradient()).save(stream, "PNG", pnginfo=info, dpi=(72, 72), icc_profile=srgb_profile())
    return stream.getvalue()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda data: data[:-2], "the end is missing"),
        (lambda data: data[:-5], "the end is missing"),
        (lambda data: b"HTTP/1.1 200 OK\r\n\r\n" + data, "19 bytes stand before the picture"),
        (lambda data: b"junk" + data[:-2], "4 bytes stand before the picture and the end is missing"),
    ],
    ids=["end", "five bytes", "before", "both"],
)
def test_a_jpeg_that_viewers_show(tmp_path, caplog, progressive, damage, problem):
    data = jpeg(progressive=progressive)
    (tmp_path / "whole.jpg").write_bytes(data)
    (tmp_path / "damaged.jpg").write_bytes(damage(data))
    whole, damaged = (read_photo(tmp_path / f"{name}.jpg").pixels.astype(int) for name in ("whole", "damaged"))
    np.testing.assert_array_equal(whole[:-24], damaged[:-24])
    assert f"damaged.jpg: {problem}" in caplog.text


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_half_a_jpeg_is_refused(tmp_path, share):
    data = jpeg()
    (tmp_path / "half.jpg").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InterLCMError, match=r"half\.jpg: can't be read as an image"):
        read_photo(tmp_path / "half.jpg")


def test_the_preview_within_a_file_of_another_format_is_not_taken_for_the_picture(tmp_path):
    (tmp_path / "a.psd").write_bytes(b"8BPS" + bytes(500) + jpeg() + np.random.default_rng(0).bytes(50_000))
    with pytest.raises(InterLCMError, match=r"a\.psd: not an image"):
        read_photo(tmp_path / "a.psd")


@pytest.mark.parametrize("name", [b"tEXt", b"pHYs"])
def test_a_png_whose_chunk_without_pixels_is_damaged(tmp_path, caplog, name):
    data = bytearray(png(Comment="a text"))
    data[data.index(name) + 5] ^= 255
    (tmp_path / "damaged.png").write_bytes(data)
    np.testing.assert_array_equal(read_photo(tmp_path / "damaged.png").pixels, gradient())
    assert f"damaged.png: {name.decode()}: damaged and left out" in caplog.text


@pytest.mark.parametrize(("name", "profile_stays"), [(b"zTXt", True), (b"iCCP", False)])
def test_a_png_whose_chunk_without_pixels_makes_no_sense(tmp_path, caplog, name, profile_stays):
    data = bytearray(png(Comment="zip this"))
    place = data.index(name)
    end = place + 4 + int.from_bytes(data[place - 4 : place])
    data[data.index(0, place + 4) + 1] = 77  # how it is packed
    data[end : end + 4] = zlib.crc32(data[place:end]).to_bytes(4)
    (tmp_path / "damaged.png").write_bytes(data)
    photo = read_photo(tmp_path / "damaged.png")
    np.testing.assert_array_equal(photo.pixels, gradient())
    assert (photo.metadata.icc is not None) == profile_stays
    assert name.decode() in caplog.text


def test_a_tiff_whose_tag_about_the_picture_is_of_a_wrong_type(tmp_path, caplog):
    exif, stream = Image.Exif(), io.BytesIO()
    exif[0x8769] = {0x829A: 0.01}
    Image.fromarray(gradient()).save(stream, "TIFF", exif=exif.tobytes())
    data = bytearray(stream.getvalue())
    order = "<" if data[:2] == b"II" else ">"
    # Where the EXIF is, by a signed number.
    struct.pack_into(f"{order}HIi", data, data.index(struct.pack(f"{order}HHI", 0x8769, 4, 1)) + 2, 9, 1, -10)
    (tmp_path / "damaged.tif").write_bytes(data)
    np.testing.assert_array_equal(read_photo(tmp_path / "damaged.tif").pixels, gradient())
    assert "damaged.tif: profile, EXIF and texts are damaged and left out" in caplog.text


def test_a_png_whose_pixels_are_damaged_is_refused(tmp_path):
    data = bytearray(png())
    data[data.index(b"IDAT") + 8] ^= 255
    (tmp_path / "damaged.png").write_bytes(data)
    with pytest.raises(InterLCMError, match="can't be read as an image"):
        read_photo(tmp_path / "damaged.png")
