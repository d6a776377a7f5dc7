"""What a restored photo carries on of the file it was made from."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from interlcm_jax.imaging.io import Photo, read_photo, write_photo
from interlcm_jax.imaging.metadata import Metadata, read_metadata
from tests.imaging.odd_images import gradient, srgb_profile

BASE, IFD = ExifTags.Base, ExifTags.IFD
WITH_EXIF = [".jpg", ".png", ".webp", ".tif"]
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6" dc:title="Anna"/></x:xmpmeta>'


def camera_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[BASE.Make], exif[BASE.Orientation], exif[BASE.Copyright] = "Canon", 6, "© Anna".encode()
    exif[IFD.Exif.value] = {
        BASE.DateTimeOriginal: "2026:01:02 03:04:05",
        BASE.ExifImageWidth: 24,
        BASE.MakerNote: b"offsets into the file",
        BASE.ExposureTime: 0.01,
    }
    exif[IFD.GPSInfo.value] = {1: "N", 2: (52.0, 31.0, 12.0)}
    return exif


def with_thumbnail(exif: Image.Exif) -> bytes:
    """EXIF whose second directory is a thumbnail, as cameras write it."""
    small = io.BytesIO()
    Image.fromarray(gradient()).save(small, "JPEG")
    data = bytearray(exif.tobytes(offset=8))
    body = data[6:]
    little = body[:2] == b"II"
    order = "little" if little else "big"
    count = int.from_bytes(body[8:10], order)
    link = 10 + 12 * count
    start = len(body)
    body[link : link + 4] = start.to_bytes(4, order)
    entries = b""
    for tag, value in ((0x0201, start + 2 + 24 + 4), (0x0202, small.tell())):
        entries += tag.to_bytes(2, order) + (4).to_bytes(2, order) + (1).to_bytes(4, order) + value.to_bytes(4, order)
    body += (2).to_bytes(2, order) + entries + bytes(4) + small.getvalue()
    return b"Exif\0\0" + bytes(body)


def stored_photo(path, **options):
    """A photo that the camera stored lying on its side."""
    Image.fromarray(np.ascontiguousarray(np.rot90(gradient()))).save(path, quality=95, **options)
    return path


@pytest.mark.parametrize("target", WITH_EXIF)
@pytest.mark.parametrize("source", WITH_EXIF)
def test_exif_is_carried_for_the_upright_picture(tmp_path, source, target):
    exif = camera_exif().tobytes() if source == ".tif" else with_thumbnail(camera_exif())
    photo = read_photo(stored_photo(tmp_path / f"in{source}", exif=exif))
    write_photo(tmp_path / f"out{target}", photo.pixels, photo)
    again = read_photo(tmp_path / f"out{target}")
    assert again.pixels.shape == gradient().shape
    assert np.abs(again.pixels.astype(int) - gradient()).mean() < 10
    with Image.open(tmp_path / f"out{target}") as image:
        exif = image.getexif()
        assert exif[BASE.Make] == "Canon"
        if source != ".tif":  # Pillow can't write such a source
            assert exif[BASE.Copyright].encode("latin-1").decode() == "© Anna"
        assert exif.get(BASE.Orientation, 1) == 1
        camera = exif.get_ifd(IFD.Exif)
        assert camera[BASE.DateTimeOriginal] == "2026:01:02 03:04:05"
        assert camera[BASE.ExposureTime] == pytest.approx(0.01)
        assert not {BASE.ExifImageWidth, BASE.MakerNote} & camera.keys()
        assert exif.get_ifd(IFD.GPSInfo)[1] == "N"
        assert not exif.get_ifd(IFD.IFD1)


@pytest.mark.parametrize("target", [*WITH_EXIF, ".bmp"])
@pytest.mark.parametrize("source", WITH_EXIF)
def test_profile_and_resolution_are_carried(tmp_path, source, target):
    photo = read_photo(stored_photo(tmp_path / f"in{source}", icc_profile=srgb_profile(), dpi=(300, 300)))
    write_photo(tmp_path / f"out{target}", photo.pixels, photo)
    again = read_photo(tmp_path / f"out{target}")
    if target != ".bmp":
        assert again.metadata.icc == photo.metadata.icc
        assert ImageCms.ImageCmsProfile(io.BytesIO(again.metadata.icc)).profile.xcolor_space == "RGB "
    if ".webp" not in (source, target):
        assert again.metadata.dpi == pytest.approx((300, 300), abs=0.1)


@pytest.mark.parametrize("target", WITH_EXIF)
def test_xmp_is_carried_and_says_upright(tmp_path, target):
    photo = read_photo(stored_photo(tmp_path / "in.jpg", xmp=XMP))
    assert photo.pixels.shape == gradient().shape  # XMP's orientation counts where EXIF has none
    write_photo(tmp_path / f"out{target}", photo.pixels, photo)
    with Image.open(tmp_path / f"out{target}") as image:
        xmp = image.info["xmp"]
        assert b'dc:title="Anna"' in xmp
        assert b'tiff:Orientation="6"' not in xmp
    assert read_photo(tmp_path / f"out{target}").pixels.shape == gradient().shape


def test_an_orientation_in_xmp_that_exif_overrules_does_not_come_to_count(tmp_path):
    exif = Image.Exif()
    exif[BASE.Orientation], exif[BASE.Make] = 1, "Canon"
    Image.fromarray(gradient()).save(tmp_path / "in.jpg", exif=exif, xmp=XMP)
    photo = read_photo(tmp_path / "in.jpg")
    assert photo.pixels.shape == gradient().shape
    write_photo(tmp_path / "out.jpg", photo.pixels, photo)
    assert read_photo(tmp_path / "out.jpg").pixels.shape == gradient().shape


@pytest.mark.parametrize("claim", [b"GCamera:MotionPhoto='1'", b"hdrgm:Version='1.0'", b"<Container:Directory>"])
def test_xmp_about_films_and_pictures_that_are_not_copied_is_left(tmp_path, claim):
    photo = read_photo(stored_photo(tmp_path / "phone.jpg", xmp=XMP + claim))
    assert photo.metadata.xmp is None


def test_texts_of_a_png_are_carried(tmp_path):
    texts = (("Title", "Anna"), ("parameters", "a portrait, 人"))
    write_photo(tmp_path / "in.png", gradient(), Photo(gradient(), metadata=Metadata(text=texts, xmp=XMP)))
    photo = read_photo(tmp_path / "in.png")
    assert photo.metadata.text == texts
    write_photo(tmp_path / "out.jpg", photo.pixels, photo)
    assert read_photo(tmp_path / "out.jpg").metadata.text == ()


def test_exif_too_long_for_a_jpeg_is_left(tmp_path):
    exif = Image.Exif()
    exif[BASE.ImageDescription] = "x" * 70_000
    metadata = Metadata(exif=exif.tobytes(), xmp=b"x" * 70_000)
    write_photo(tmp_path / "out.jpg", gradient(), Photo(gradient(), metadata=metadata))
    carried = read_photo(tmp_path / "out.jpg").metadata
    assert carried.exif is None
    assert carried.xmp is None


def test_exif_that_cannot_be_stored_again_is_left():
    image = Image.fromarray(gradient())
    image.getexif()[BASE.Rating] = 2**70
    assert read_metadata(image, None).exif is None


@pytest.mark.parametrize("dpi", [(0, 0), (float("nan"), 72), (72, float("nan")), (1e9, 1e9), "nonsense", None])
def test_a_senseless_resolution_is_left(dpi):
    image = Image.fromarray(gradient())
    image.info["dpi"] = dpi
    assert read_metadata(image, None).dpi is None


@pytest.mark.parametrize("target", [".png", ".webp", ".tif"])
def test_opacity_is_carried_at_the_size_of_the_result(tmp_path, target):
    alpha = np.tile(np.linspace(0, 255, 32).astype(np.uint8), (24, 1))
    photo = Photo(gradient(), alpha)
    write_photo(tmp_path / f"same{target}", photo.pixels, photo)
    np.testing.assert_array_equal(read_photo(tmp_path / f"same{target}").alpha, alpha)
    write_photo(tmp_path / f"twice{target}", gradient(48, 64), photo)
    larger = read_photo(tmp_path / f"twice{target}")
    assert larger.alpha.shape == (48, 64)
    assert np.abs(larger.alpha[::2, ::2].astype(int) - alpha).max() < 6


@pytest.mark.parametrize("target", [".png", ".webp", ".tif"])
def test_colors_under_what_is_transparent_are_kept(tmp_path, target):
    photo = Photo(gradient(), np.zeros((24, 32), np.uint8))
    write_photo(tmp_path / f"a{target}", photo.pixels, photo)
    assert np.abs(read_photo(tmp_path / f"a{target}").pixels.astype(int) - gradient()).mean() < 8


@pytest.mark.parametrize("target", [".jpg", ".bmp"])
def test_where_there_is_no_opacity_the_ground_is_white(tmp_path, target):
    alpha = np.zeros((24, 32), np.uint8)
    alpha[:, 16:] = 255
    write_photo(tmp_path / f"a{target}", np.zeros((24, 32, 3), np.uint8), Photo(gradient(), alpha))
    flat = read_photo(tmp_path / f"a{target}")
    assert flat.alpha is None
    assert flat.pixels[:, :12].min() > 250
    assert flat.pixels[:, 20:].max() < 5


def test_jpeg_keeps_colors_at_full_resolution(tmp_path):
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2], stripes[:, 1::2] = (255, 0, 0), (0, 0, 255)
    write_photo(tmp_path / "a.jpg", stripes)
    assert np.abs(read_photo(tmp_path / "a.jpg").pixels.astype(int) - stripes).max() < 30
