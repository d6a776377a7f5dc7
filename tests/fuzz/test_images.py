"""Damaged image files: each is read or refused by name, and what is read can be written and read again."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin
from PIL.PngImagePlugin import PngInfo

from interlcm_jax.data.images import check_header
from interlcm_jax.errors import InterLCMError
from interlcm_jax.imaging.io import SUFFIXES, read_photo, write_photo
from tests.imaging.odd_images import gradient, srgb_profile

pytestmark = pytest.mark.long

PHONE = Path(__file__).parents[1] / "imaging" / "gradient.heic"
MUTATIONS = 200  # of each kind of file


def exif() -> bytes:
    tags = Image.Exif()
    tags[0x010E], tags[0x0112], tags[0x013B] = "A photo", 6, "Someone"
    tags[0x8769] = {0x829A: TiffImagePlugin.IFDRational(1, 60), 0x927C: b"maker's own"}
    tags[0x8825] = {1: "N", 2: (1.0, 2.0, 3.0)}
    return tags.tobytes()


def texts() -> PngInfo:
    info = PngInfo()
    info.add_text("Comment", "a text", zip=True)
    info.add_itxt("XML:com.adobe.xmp", '<x:xmpmeta tiff:Orientation="6"/>')
    return info


CARRIED = {"icc_profile": srgb_profile(), "exif": exif(), "dpi": (300, 300)}
KINDS = {
    "jpeg": ("JPEG", CARRIED),
    "progressive": ("JPEG", CARRIED | {"progressive": True}),
    "png": ("PNG", CARRIED | {"pnginfo": texts()}),
    "webp": ("WEBP", CARRIED),
    "tiff": ("TIFF", CARRIED),
    "lzw": ("TIFF", {"compression": "tiff_lzw", "dpi": (300, 300)}),
    "gif": ("GIF", {}),
    "bmp": ("BMP", {}),
    "ppm": ("PPM", {}),
    "jpeg2000": ("JPEG2000", {}),
    "avif": ("AVIF", CARRIED),
    "heic": ("HEIF", {}),
}


def whole(kind: str) -> bytes:
    format, options = KINDS[kind]
    if format == "HEIF":
        return PHONE.read_bytes()
    stream = io.BytesIO()
    Image.fromarray(gradient(48, 64)).save(stream, format, **options)
    return stream.getvalue()


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes replaced, cut off, taken out, put in, or moved; mostly near the start, where the headers are."""
    place = int(rng.integers(0, len(data) if rng.random() < 0.4 else min(len(data), 400)))
    length = int(rng.choice([1, 2, 4, 8, 60]))
    some = rng.choice([rng.bytes(length), b"\0" * length, b"\xff" * length])
    match rng.integers(0, 5):
        case 0:
            return data[:place]
        case 1:
            return data[:place] + data[place + length :]
        case 2:
            return data[:place] + some + data[place:]
        case 3:
            return data[:place] + data[place + length : place + 2 * length] + data[place:]
        case _:
            return data[:place] + some + data[place + length :]


def read_or_refuse(read: Callable, path: Path) -> Any:
    try:
        return read(path)
    except InterLCMError as refusal:
        if str(refusal).startswith(f"{path}: "):
            return None
        raise


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files(tmp_path, kind):
    rng, data = np.random.default_rng([25, *kind.encode()]), whole(kind)
    path = tmp_path / "damaged"
    outcomes = []
    for number in range(MUTATIONS):
        bad = damaged(data, rng)
        if bad and rng.random() < 0.3:
            bad = damaged(bad, rng)
        path.write_bytes(bad)
        with warnings.catch_warnings():
            warnings.simplefilter(["ignore", "error"][number % 2])
            photo = read_or_refuse(read_photo, path)
        outcomes.append(photo is not None)
        # Damage may enlarge a picture.
        if photo is None or photo.pixels.size > 3_000_000:
            continue
        target = tmp_path / f"out{SUFFIXES[number % len(SUFFIXES)]}"
        write_photo(target, photo.pixels, photo)
        assert read_photo(target).pixels.shape == photo.pixels.shape, number
    assert any(outcomes)
    assert not all(outcomes)


def test_damaged_headers(tmp_path):
    rng, path = np.random.default_rng(25), tmp_path / "damaged"
    for kind in KINDS:
        data = whole(kind)
        for _ in range(MUTATIONS // 3):
            path.write_bytes(damaged(data, rng))
            read_or_refuse(check_header, path)
