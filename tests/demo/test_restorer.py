"""What the page does with a photo."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from interlcm_jax.demo import restorer as module
from interlcm_jax.demo.batches import SharedBatches
from interlcm_jax.demo.restorer import Restorer
from interlcm_jax.errors import InterLCMError
from interlcm_jax.faces.detect import Face
from interlcm_jax.imaging.io import read_photo
from interlcm_jax.photos.image import RestoreOptions, restore_photo
from tests.miniature import miniature_model

POINTS = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]], np.float32)
OPTIONS = RestoreOptions(leave_sharp="off")


def two_faces(photo):
    """A detector: one face to the left and one to the right, whatever is there."""
    side = photo.shape[0] / 2
    return [
        Face(np.array([x, 0, x + side, side], np.float32), POINTS * side + np.array([x, 0], np.float32), score)
        for x, score in ((side, 0.9), (0, 0.8))
    ]


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "family.png")
    return tmp_path / "family.png"


@pytest.fixture
def restorer(tmp_path):
    model = miniature_model()
    (tmp_path / "storage").mkdir()
    with SharedBatches(model, 4) as batches:
        yield Restorer(model.config, batches, two_faces, tmp_path / "storage")


def test_a_photo_is_restored_as_by_the_library(restorer, photo):
    told = []
    restored = restorer.restore(photo, OPTIONS, lambda part, what: told.append((part, what)), seed=3, fidelity=0.25)
    alone = restore_photo(miniature_model(), photo, OPTIONS, two_faces, batch_size=4, seed=3, fidelity=0.25)
    np.testing.assert_array_equal(read_photo(restored.result).pixels, alone)
    assert restored.result.name == "family_restored.png"
    assert restored.summary == "family.png: 2 faces restored"
    shapes = {read_photo(path).pixels.shape for path in (restored.before, restored.after)}
    assert shapes == {alone.shape}
    parts = [part for part, _ in told]
    assert (parts[0], sorted(parts)) == (0, parts)
    assert told[-2][1] == "family.png: 2 of 2 faces restored"


def test_numbers_choose_faces_as_the_picture_shows_them(restorer, photo):
    picture, count = restorer.number(photo)
    assert count == 2
    assert read_photo(picture).pixels.shape == (512, 1024, 3)
    restored = restorer.restore(photo, RestoreOptions(faces="1", leave_sharp="off"))
    assert restored.summary == "family.png: 1 face restored"
    changed = read_photo(restored.result).pixels != read_photo(restored.before).pixels
    assert changed[:, 160:].mean() > 0.9


def test_the_upsampler_enlarges_where_it_is_asked_to(restorer, photo):
    def white(pixels, factor):
        return np.full((round(pixels.shape[0] * factor), round(pixels.shape[1] * factor), 3), 255, np.uint8)

    with_one = dataclasses.replace(restorer, upsampler=white)
    choice = RestoreOptions(faces="0", leave_sharp="off")
    for upsample in (True, False):
        result = read_photo(with_one.restore(photo, choice, upsample=upsample).result)
        assert (result.pixels[-20:] == 255).all() == upsample


def test_messages_name_the_file_and_not_its_folder(restorer, photo, monkeypatch):
    with pytest.raises(InterLCMError, match=r"^family.png: there is no face 5: the photo has 2"):
        restorer.restore(photo, RestoreOptions(faces="5"))
    broken = photo.with_name("broken.png")
    broken.write_bytes(photo.read_bytes()[:100])
    for work in (restorer.number, lambda source: restorer.restore(source, OPTIONS)):
        with pytest.raises(InterLCMError, match=r"^broken.png: ") as raised:
            work(broken)
        assert str(photo.parent) not in str(raised.value)
    monkeypatch.setattr(module, "MAX_RESULT", 1_000_000)
    with pytest.raises(InterLCMError, match=r"^family.png: enlarged 16 times .* 2 million pixels.*: enlarge it less"):
        restorer.restore(photo, RestoreOptions(upscale=16))
    monkeypatch.setattr(module, "MAX_PIXELS", 8000)
    with pytest.raises(InterLCMError, match=r"^family.png: .*pixels"):
        restorer.number(photo)
    # Nothing is written for what can't be restored.
    assert list(restorer.storage.iterdir()) == []


def test_large_pictures_are_shown_smaller_and_offered_whole(restorer, photo, monkeypatch):
    monkeypatch.setattr(module, "SHOWN", 100)
    restored = restorer.restore(photo, OPTIONS)
    assert {read_photo(path).pixels.shape for path in (restored.before, restored.after)} == {(50, 100, 3)}
    assert read_photo(restored.result).pixels.shape == (128, 256, 3)
