"""Small damage is mended and named; half a picture is refused."""

import io

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from interlcm_jax.errors import InterLCMError
from interlcm_jax.imaging.io import read_photo
from tests.imaging.odd_images import gradient


def jpeg(height=96, width=128, **options):
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 60, (height, width, 3), np.uint8)
    Image.fromarray(gradient(height, width) // 2 + noise).save(stream, "JPEG", quality=90, **options)
    return stream.getvalue()


def png(**texts):
    info, stream = PngInfo(), io.BytesIO()
    for key, value in texts.items():
        info.add_text(key, value)
    Image.fromarray(gradient()).save(stream, "PNG", pnginfo=info, dpi=(72, 72))
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


@pytest.mark.parametrize("name", [b"tEXt", b"pHYs"])
def test_a_png_whose_chunk_without_pixels_is_damaged(tmp_path, caplog, name):
    data = bytearray(png(Comment="a text"))
    data[data.index(name) + 5] ^= 255
    (tmp_path / "damaged.png").write_bytes(data)
    np.testing.assert_array_equal(read_photo(tmp_path / "damaged.png").pixels, gradient())
    assert f"{name.decode()} is damaged and left out" in caplog.text


def test_a_png_whose_pixels_are_damaged_is_refused(tmp_path):
    data = bytearray(png())
    data[data.index(b"IDAT") + 8] ^= 255
    (tmp_path / "damaged.png").write_bytes(data)
    with pytest.raises(InterLCMError, match="can't be read as an image"):
        read_photo(tmp_path / "damaged.png")
