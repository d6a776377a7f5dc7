"""Plain mistakes in calling `restore_photo` and `restore_files` are said in words, before any work."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from interlcm_jax import InterLCMError, RestoreOptions, restore_files, restore_photo
from interlcm_jax.imaging.io import Photo
from interlcm_jax.photos.image import extract_faces, paste_back
from tests.photos.darkening import CONFIG, SIZE, Darkening

ALIGNED = RestoreOptions(aligned=True)
PIXELS = np.zeros((SIZE, SIZE, 3), np.uint8)
FLOATS = PIXELS.astype(np.float32)

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"upscale": "2"}, "upscale is '2', but must be a number from 1 to 16"),
        ({"upscale": None}, "upscale is None"),
        ({"upscale": float("nan")}, "upscale is nan"),
        ({"upscale": True}, "upscale is True"),
        ({"aligned": "no"}, "aligned is of type str, but must be True or False"),
        ({"faces": "biggest"}, "faces is 'biggest', but must be all, largest, center, or numbers such as 0 or 0,2"),
        ({"gray": ["auto"]}, r"gray is \['auto'\]"),
        ({"leave_sharp": True}, "leave_sharp is True, but must be auto, off or a number from 0"),
        ({"leave_sharp": []}, r"leave_sharp is \[\]"),
    ],
)
def test_options_that_do_not_exist(options, message):
    with pytest.raises(InterLCMError, match=message):
        RestoreOptions(**options)


@pytest.mark.parametrize(
    ("photo", "message"),
    [
        (PIXELS, r"photo is of type numpy\.ndarray, but must be a file, or an imaging\.io\.Photo: Photo\(pixels\)"),
        (Image.fromarray(PIXELS), r"photo is of type PIL\.Image\.Image"),
        (None, "photo is of type NoneType"),
        (b"a.png", "photo is of type bytes"),
    ],
)
def test_what_is_no_photo(photo, message):
    with pytest.raises(InterLCMError, match=message):
        restore_photo(Darkening(), photo, ALIGNED)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (None, r"photo\.pixels is of type NoneType, but must be a NumPy array"),
        (FLOATS, r"photo\.pixels are float32 \(64, 64, 3\), but must be uint8 RGB, \(H, W, 3\)"),
        (PIXELS[..., 0], r"photo\.pixels are uint8 \(64, 64\)"),
        (PIXELS[:0], r"photo\.pixels are uint8 \(0, 64, 3\)"),
    ],
)
def test_what_are_no_pixels(pixels, message):
    with pytest.raises(InterLCMError, match=message):
        restore_photo(Darkening(), Photo(pixels), ALIGNED)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "small"}, r"model is of type str, but must be an InterLCM, such as InterLCM\.from_pretrained\(\)"),
        ({"options": {"aligned": True}}, "options is of type dict, but must be RestoreOptions"),
        ({"options": None}, "options is of type NoneType"),
        ({"detector": "mtcnn"}, "detector is of type str, but must be None or a function"),
        ({"upsampler": "x4plus"}, "upsampler is of type str, but must be None or a function"),
        ({"parser": PIXELS}, r"parser is of type numpy\.ndarray"),
    ],
)
@pytest.mark.parametrize("restore", [restore_photo, restore_files])
def test_arguments_beside_the_images(tmp_path, restore, arguments, message):
    images = [Photo(PIXELS)] if restore is restore_photo else [tmp_path / "a.png", tmp_path / "out"]
    given = {"model": Darkening(), "options": ALIGNED, **arguments}
    with pytest.raises(InterLCMError, match=message):
        restore(given.pop("model"), *images, **given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("inputs", "out", "options", "message"),
    [
        (None, "out", {}, "inputs is of type NoneType, but must be files, folders, patterns or jobs"),
        (3, "out", {}, "inputs is of type int"),
        ([PIXELS], "out", {}, r"an input is of type numpy\.ndarray, .* images in memory are restored by restore_photo"),
        (["a.png", None], "out", {}, "an input is of type NoneType"),
        ("a.png", None, {}, "out is of type NoneType, but must be a folder"),
        ("a.png", "out", {"workers": "2"}, "workers is of type str"),
        ("a.png", "out", {"workers": 0}, "workers is 0"),
    ],
)
def test_inputs_that_are_no_files(tmp_path, monkeypatch, inputs, out, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InterLCMError, match=message):
        restore_files(Darkening(), inputs, out, ALIGNED, **options)
    assert not list(tmp_path.iterdir())


def test_inputs_may_be_any_iterable_of_paths(tmp_path):
    for name in ("a.png", "b.png"):
        Image.fromarray(PIXELS).save(tmp_path / name)
    outcomes = restore_files(Darkening(), (tmp_path / name for name in ("a.png", "b.png")), tmp_path / "out", ALIGNED)
    assert [outcome.error for outcome in outcomes] == [None, None]
    restored = restore_photo(Darkening(), str(Path(tmp_path / "a.png")), ALIGNED)
    np.testing.assert_array_equal(restored, PIXELS // 2)


def test_another_number_of_faces_than_were_extracted():
    extracted = extract_faces(Photo(PIXELS), CONFIG, ALIGNED, None)
    with pytest.raises(InterLCMError, match="2 restored faces given for 1 that were extracted"):
        paste_back(extracted, [PIXELS, PIXELS], CONFIG, ALIGNED)
