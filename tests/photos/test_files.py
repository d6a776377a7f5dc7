"""Many files restored into a folder: what is written, what a bad file costs, and when a run ends."""

import errno
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from skimage import data

from interlcm_jax import InterLCMError, RestoreOptions, restore_files
from interlcm_jax.photos.files import OutputError
from interlcm_jax.photos.plan import Job
from tests.cli.aligned_faces import face as save_face
from tests.cli.aligned_faces import names
from tests.photos.darkening import SIZE, Darkening, face, finding, sharp_face

ALIGNED, SHARP = RestoreOptions(aligned=True, gray="color"), RestoreOptions(upscale=1, leave_sharp=0.3)
NOSE = (223, 110)  # x and y in scikit-image's astronaut, roughly

pytestmark = pytest.mark.usefixtures("empty_folder")


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(path):
    return np.asarray(Image.open(path).convert("RGB"))


def save(name, *pictures, **options):
    image = Image.fromarray(np.concatenate(pictures, axis=1))
    image.save(name, **options)
    return np.asarray(image)


def darker(before, after, x, y):
    """Whether the photo got darker around this place."""
    patch = np.s_[y - 5 : y + 5, x - 5 : x + 5]
    ratio = after[patch].mean() / before[patch].mean()
    assert ratio < 0.55 or ratio > 0.95
    return ratio < 0.55


def errors(outcomes):
    return {str(outcome.job.source): outcome.error for outcome in outcomes if outcome.error is not None}


def test_folders_keep_their_structure_and_outcomes_their_order(tmp_path):
    sources = [save_face(tmp_path / "in" / name, i) for i, name in enumerate(["a.png", "sub/b.WEBP", "sub/c.jpg"])]
    (tmp_path / "in" / "notes.txt").write_text("not an image")
    seen = []
    outcomes = restore_files(Darkening(), "in", "out", ALIGNED, done=seen.append, workers=3)
    assert names(tmp_path / "out") == ["a.png", "sub/b.png", "sub/c.png"]
    assert [tmp_path / outcome.job.source for outcome in outcomes] == sources
    assert [(outcome.faces, outcome.error) for outcome in outcomes] == [(1, None)] * 3
    assert sorted(seen, key=lambda outcome: outcome.job) == outcomes
    for outcome in outcomes:
        np.testing.assert_array_equal(read(outcome.job.target), read(outcome.job.source) // 2)


@pytest.mark.parametrize(
    ("name", "size", "mode"),
    [
        ("odd.png", (71, 53), "RGB"),
        ("tiny.png", (1, 1), "RGB"),
        ("gray.png", (64, 64), "L"),
        ("alpha.png", (64, 64), "RGBA"),
        ("palette.png", (64, 64), "P"),
        ("two words & more (1).png", (64, 64), "RGB"),
        ("Grüße 顔 🙂.png", (64, 64), "RGB"),
        (".hidden.png", (64, 64), "RGB"),
        ("two.dots.png", (64, 64), "RGB"),
    ],
)
def test_pictures_of_every_kind_and_name(tmp_path, name, size, mode):
    source = save_face(tmp_path / "in" / name, 7, size, mode)
    [outcome] = restore_files(Darkening(), source, "out", ALIGNED)
    assert outcome.error is None
    assert names(tmp_path / "out") == [name]
    assert read(tmp_path / "out" / name).shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".tiff"])
def test_other_formats(tmp_path, suffix):
    restore_files(Darkening(), [save_face(tmp_path / "a.png", 1)], "out", ALIGNED, suffix=suffix)
    assert names(tmp_path / "out") == [f"a{suffix}"]
    with Image.open(tmp_path / "out" / f"a{suffix}") as image:
        assert Image.registered_extensions()[suffix] == image.format


def test_jobs_say_themselves_where_results_go(tmp_path):
    job = Job(save_face(tmp_path / "a.png"), tmp_path / "out" / "called" / "otherwise.png")
    assert [outcome.job for outcome in restore_files(Darkening(), [job], "out", ALIGNED)] == [job]
    assert names(tmp_path / "out") == ["called/otherwise.png"]


def test_a_bad_file_costs_that_file_only(tmp_path, monkeypatch):
    for i in range(2):
        save_face(Path(f"good{i}.png"), i)
    whole = save_face(Path("whole.jpg"), 1).read_bytes()
    Path("cut.jpg").write_bytes(whole[: len(whole) // 2])
    Path("empty.png").write_bytes(b"")
    Path("text.png").write_text("<html>404</html>")
    save_face(Path("closed.png"))
    original = Path.open

    def forbidden(self, *arguments, **options):
        if self.name == "closed.png":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return original(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", forbidden)
    gists = {
        "cut.jpg": "truncated",
        "empty.png": "not an image (the file is empty)",
        "text.png": "not an image",
        "missing.png": "no such file",
        "closed.png": "can't be opened (Permission denied)",
    }
    outcomes = restore_files(Darkening(), ["good0.png", *gists, "good1.png"], "out", ALIGNED)
    assert names(tmp_path / "out") == ["good0.png", "good1.png"]
    found = errors(outcomes)
    assert list(found) == list(gists)
    for name, gist in gists.items():
        assert found[name].startswith(f"{name}: ")
        assert gist in found[name]


def test_a_picture_that_cannot_be_written_costs_that_picture_only(tmp_path):
    for name in ("a.png", "sub/b.png"):
        save_face(tmp_path / "in" / name, 1)
    Path("out").mkdir()
    Path("out/sub").write_text("in the way")
    outcomes = restore_files(Darkening(), "in", "out", ALIGNED)
    assert names(tmp_path / "out") == ["a.png", "sub"]
    assert errors(outcomes)["in/sub/b.png"].startswith("out/sub/b.png: can't be written")


def test_an_error_of_an_unknown_kind_is_named(tmp_path):
    def failing(photo):
        raise ZeroDivisionError("nothing")

    save_face(Path("a.png"))
    assert errors(restore_files(Darkening(), "a.png", "out", detector=failing)) == {
        "a.png": "a.png: ZeroDivisionError: nothing"
    }


def test_networks_that_give_nan_save_nothing(tmp_path):
    save_face(Path("a.png"))
    outcomes = restore_files(Darkening(lambda face: None), "a.png", "out", ALIGNED)
    assert names(tmp_path / "out") == []
    assert errors(outcomes) == {"a.png": "a.png: the networks gave NaN or infinity for 1 of 1 faces; try float32"}


def test_a_device_without_memory_is_one_clear_error():
    def failing(error):
        def answer(face):
            raise error

        return Darkening(answer)

    save_face(Path("a.png"))
    exhausted = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.")
    with pytest.raises(InterLCMError, match="too little memory to restore faces with a batch size of 1: lower"):
        restore_files(failing(exhausted), "a.png", "out", ALIGNED, batch_size=4)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        restore_files(failing(jax.errors.JaxRuntimeError("INTERNAL")), "a.png", "out", ALIGNED)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_an_output_folder_that_takes_no_more_ends_the_run_and_the_next_goes_on(tmp_path, monkeypatch, number):
    for i in range(3):
        save_face(tmp_path / "in" / f"{i}.png", i)
    original = Path.write_bytes

    def write_bytes(self, data):
        if self.name.startswith(".1.png"):
            raise OSError(number, os.strerror(number), str(self))
        return original(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_bytes)
        with pytest.raises(OutputError, match=r"out/1\.png: can't be written \(.*\); 1 images are done"):
            restore_files(Darkening(), "in", "out", ALIGNED, workers=1)
    assert "0.png" in names(tmp_path / "out")
    left = {"0.png", "1.png", "2.png"} - {*names(tmp_path / "out")}
    outcomes = restore_files(Darkening(), "in", "out", ALIGNED, skip_existing=True)
    assert {outcome.job.source.name for outcome in outcomes} == left
    assert names(tmp_path / "out") == ["0.png", "1.png", "2.png"]
    assert restore_files(Darkening(pytest.fail), "in", "out", ALIGNED, skip_existing=True) == []


def test_an_output_folder_that_takes_no_files_at_all(monkeypatch):
    def read_only(dir):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    save_face(Path("a.png"))
    monkeypatch.setattr("interlcm_jax.photos.files.tempfile.TemporaryFile", read_only)
    with pytest.raises(InterLCMError, match=r"out: nothing can be written into this folder \(Permission denied\)"):
        restore_files(Darkening(pytest.fail), "a.png", "out", ALIGNED)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"num_network_calls": 99}, "num_network_calls is 99"),
        ({"color_fix": "sepia"}, "color_fix is 'sepia'"),
        ({"fidelity": 2.0}, "fidelity is 2.0"),
        ({"vae_slice": 0}, "vae_slice is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"workers": 0}, "workers is 0"),
        ({"suffix": ".gif"}, "suffix is '.gif', but must be one of .bmp, "),
    ],
)
def test_options_that_make_no_sense_leave_no_folder(tmp_path, options, message):
    save_face(Path("a.png"))
    with pytest.raises(InterLCMError, match=message):
        restore_files(Darkening(), "a.png", "out", ALIGNED, **options)
    assert names(tmp_path) == ["a.png"]
    assert not Path("out").exists()


def test_options_reach_the_model_and_a_batch_is_no_larger_than_the_aligned_faces():
    for name in ("a.png", "b.png"):
        save_face(Path(name))
    model, options = Darkening(), {"seed": 5, "color_fix": "adain", "num_network_calls": 1, "vae_slice": 1}
    restore_files(model, ["a.png", "b.png"], "out", ALIGNED, batch_size=8, fidelity=0.25, **options)
    restore_files(model, ["a.png", "b.png"], "out", batch_size=8, detector=finding())
    assert model.options == [options | {"batch_size": 2, "fidelity": 0.25}, {"batch_size": 8}]


def test_every_face_of_a_group_is_found_and_restored_in_its_place_and_photos_share_batches():
    portrait, (x, y) = data.astronaut(), NOSE
    group = save("group.png", portrait, portrait[:, ::-1])
    save("wall.png", data.brick()[..., None].repeat(3, -1))
    save("one.jpg", portrait, quality=95)
    model = Darkening()
    outcomes = restore_files(model, ["group.png", "wall.png", "one.jpg"], "out", RestoreOptions(upscale=2))
    assert [(outcome.faces, outcome.error) for outcome in outcomes] == [(2, None), (0, None), (1, None)]
    assert len(model.options) == 1
    assert not Path("out/wall.png").exists()
    after = read("out/group.png")
    assert after.shape == (1024, 2048, 3)
    after = after[::2, ::2]
    assert darker(group, after, x, y)
    assert darker(group, after, 1023 - x, y)
    assert np.abs(after[420:].astype(int) - group[420:]).mean() < 4
    assert darker(portrait, read("out/one.png")[::2, ::2], x, y)


def test_a_photo_that_lies_on_its_side_is_turned_by_its_exif_and_opacity_is_kept():
    portrait, (x, y) = data.astronaut(), NOSE
    exif = Image.Exif()
    exif[0x0112] = 8  # the top of the picture is at its left: turn it by 90 degrees to the left
    save("side.jpg", np.rot90(portrait, -1), exif=exif, quality=95)
    opacity = np.tile(np.arange(256, dtype=np.uint8).repeat(2), (512, 1))
    save("clear.png", np.dstack([portrait, opacity]))
    around_the_nose = finding(face(x - 50, y - 60, 100))
    restore_files(Darkening(), ["side.jpg", "clear.png"], "out", RestoreOptions(upscale=1), detector=around_the_nose)
    assert darker(portrait, read("out/side.png"), x, y)
    with Image.open("out/side.png") as image:
        assert image.getexif().get(0x0112, 1) == 1
    np.testing.assert_array_equal(np.asarray(Image.open("out/clear.png"))[..., 3], opacity)


def test_faces_and_comparisons_are_saved_too(tmp_path):
    Path("in/sub").mkdir(parents=True)
    group = save("in/sub/group.png", data.astronaut())
    two = finding(face(100, 50, 100), face(300, 300, 100))
    extras = {"save_faces": True, "comparison": True}
    restore_files(Darkening(), "in", "out", RestoreOptions(upscale=1), detector=two, **extras)
    faces = [f"restored_faces/sub/group_{i}{what}.png" for i in (1, 2) for what in ("", "_input")]
    assert names(tmp_path / "out") == ["comparisons/sub/group.png", *faces, "sub/group.png"]
    sheet = read("out/comparisons/sub/group.png")
    np.testing.assert_array_equal(sheet[:, :512], group)
    np.testing.assert_array_equal(sheet[:, 512:], read("out/sub/group.png"))
    np.testing.assert_array_equal(read(f"out/{faces[0]}"), read(f"out/{faces[1]}") // 2)


def test_a_photo_whose_faces_are_all_sharp_is_written_too():
    photo, detector = save("sharp.png", sharp_face()), finding(face(0, 0, SIZE))
    [outcome] = restore_files(Darkening(), "sharp.png", "out", SHARP, detector=detector)
    assert (outcome.faces, outcome.left, outcome.error) == (0, 1, None)
    np.testing.assert_array_equal(read("out/sharp.png"), photo)


def test_a_result_that_is_there_is_complete():
    save("a.png", data.astronaut())
    Path("out").mkdir()
    Path("out/comparisons").write_text("in the way")
    outcomes = restore_files(Darkening(), "a.png", "out", detector=finding(face(100, 50, 100)), comparison=True)
    assert errors(outcomes)["a.png"].startswith("out/comparisons/a.png: can't be written")
    assert not Path("out/a.png").exists()
