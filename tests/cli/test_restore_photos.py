"""`interlcm restore` on whole photos, with the faces really found: what is written, and what it looks like."""

import json

import numpy as np
import pytest
from PIL import Image
from skimage import data

from interlcm_jax import InterLCM
from interlcm_jax.cli.main import main

FACE = (223, 110)  # x and y of the nose of scikit-image's astronaut, roughly


@pytest.fixture(autouse=True)
def batches(empty_folder, monkeypatch):
    """How many faces were restored together; the networks darken each face, so that one sees which were restored."""
    batches = []

    def restore_all(self, faces, *, batch_size, **options):
        faces = list(faces)
        batches.append(len(faces))
        return iter([face // 2 for face in faces])

    monkeypatch.setattr(InterLCM, "restore_all", restore_all)
    return batches


def restore(model, *arguments):
    return main(["restore", "--model", str(model), *map(str, arguments)])


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


def read(path):
    return np.asarray(Image.open(path).convert("RGB"))


def test_every_face_of_a_group_is_restored_in_its_place(model, capsys):
    portrait, (x, y) = data.astronaut(), FACE
    group = save("group.png", portrait, portrait[:, ::-1])
    assert restore(model, "group.png", "-o", "out", "--upscale", 1) == 0
    after = read("out/group.png")
    assert after.shape == group.shape
    assert darker(group, after, x, y)
    assert darker(group, after, 1023 - x, y)
    np.testing.assert_array_equal(after[400:], group[400:])
    assert "restored 1 of 1 images (2 faces) into out" in capsys.readouterr().out


def test_a_photo_becomes_twice_as_large(model):
    portrait, (x, y) = data.astronaut(), FACE
    save("a.jpg", portrait, quality=95)
    assert restore(model, "a.jpg", "-o", "out") == 0
    after = read("out/a.png")
    assert after.shape == (1024, 1024, 3)
    assert darker(portrait, after[::2, ::2], x, y)


def test_a_photo_that_lies_on_its_side_is_turned_by_its_exif(model):
    portrait, (x, y) = data.astronaut(), FACE
    exif = Image.Exif()
    exif[0x0112] = 8  # the top of the picture is at its left: turn it by 90 degrees to the left
    save("side.jpg", np.rot90(portrait, -1), exif=exif, quality=95)
    assert restore(model, "side.jpg", "-o", "out", "--upscale", 1) == 0
    assert darker(portrait, read("out/side.png"), x, y)
    with Image.open("out/side.png") as image:
        assert image.getexif().get(0x0112, 1) == 1


def test_opacity_is_kept(model):
    opacity = np.tile(np.arange(256, dtype=np.uint8).repeat(2), (512, 1))
    Image.fromarray(np.dstack([data.astronaut(), opacity])).save("a.png")
    assert restore(model, "a.png", "-o", "out", "--upscale", 1) == 0
    np.testing.assert_array_equal(np.asarray(Image.open("out/a.png"))[..., 3], opacity)


def test_a_photo_without_a_face_is_reported_and_not_written(model, tmp_path, capsys):
    save("wall.png", data.brick()[..., None].repeat(3, -1))
    save("a.png", data.astronaut())
    assert restore(model, "wall.png", "a.png", "-o", "out", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["no_face"] == ["wall.png"]
    assert [done["input"] for done in summary["restored"]] == ["a.png"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]


def test_only_the_face_in_the_middle(model):
    portrait, (x, y) = data.astronaut(), FACE
    group = save("group.png", portrait, portrait, portrait)
    assert restore(model, "group.png", "-o", "out", "--upscale", 1, "--only-center-face") == 0
    after = read("out/group.png")
    assert [darker(group, after, x + 512 * i, y) for i in range(3)] == [False, True, False]


def test_faces_and_comparisons_are_saved_beside_the_results(model, tmp_path):
    portrait = data.astronaut()
    (tmp_path / "in" / "sub").mkdir(parents=True)
    group = save("in/sub/group.png", portrait, portrait)
    assert restore(model, "in", "-o", "out", "--upscale", 1, "--save-faces", "--comparison") == 0
    files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    faces = [f"restored_faces/sub/group_{i}{what}.png" for i in (1, 2) for what in ("", "_input")]
    assert files == ["comparisons/sub/group.png", *faces, "sub/group.png"]
    sheet = read("out/comparisons/sub/group.png")
    np.testing.assert_array_equal(sheet[:, :1024], group)
    np.testing.assert_array_equal(sheet[:, 1024:], read("out/sub/group.png"))
    np.testing.assert_array_equal(read(f"out/{faces[0]}"), read(f"out/{faces[1]}") // 2)


def test_a_result_that_is_there_is_complete(model, tmp_path, capsys):
    save("a.png", data.astronaut())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "comparisons").write_text("in the way")
    assert restore(model, "a.png", "-o", "out", "--comparison") == 1
    assert "failed: out/comparisons/a.png: can't be written" in capsys.readouterr().err
    assert not (tmp_path / "out" / "a.png").exists()


def test_faces_of_different_photos_share_batches(model, batches):
    for i in range(3):
        save(f"{i}.png", data.astronaut())
    assert restore(model, *(f"{i}.png" for i in range(3)), "-o", "out") == 0
    assert batches == [3]


def test_a_detector_whose_weights_are_not_there(model, capsys):
    save("a.png", data.astronaut())
    assert restore(model, "a.png", "-o", "out", "--detector", "retinaface") == 2
    assert "no RetinaFace in this model folder; interlcm add --retinaface FILE puts it there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--upscale", "0"], "upscale is 0.0, but must be from 1 to 16"),
        (["--fidelity", "2"], "fidelity is 2.0, but must be a number from 0 to 1"),
        (["--workers", "0"], "--workers is 0"),
        (["--process-id", "0"], "belong together: give all three"),
        (["--process-id", "2", "--num-processes", "2", "--coordinator", "localhost:1"], "--process-id is 2"),
    ],
)
def test_options_that_make_no_sense(model, tmp_path, capsys, arguments, message):
    save("a.png", data.astronaut())
    assert restore(model, "a.png", "-o", "out", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
