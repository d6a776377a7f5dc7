"""Photos with their faces numbered, and the command that shows them."""

import json

import numpy as np
import pytest
from PIL import Image
from skimage import data

from interlcm_jax import InterLCM
from interlcm_jax.cli.main import main
from interlcm_jax.faces.select import FaceChoice
from interlcm_jax.imaging.io import read_image
from interlcm_jax.photos.numbered import SIDES, YELLOW, draw_numbers, number_faces
from interlcm_jax.photos.plan import Job
from tests.miniature import miniature_model
from tests.photos.darkening import SIZE, face, finding


def plates(picture):
    """Which of the picture's pixels are of a box or a plate."""
    return (picture == np.array(YELLOW, np.uint8)).all(axis=-1)


@pytest.mark.parametrize("shape", [(60, 80), (700, 1024), (2000, 6000), (40, 4000)])
def test_numbers_can_be_read_at_any_size_of_the_photo(shape):
    side = min(shape) / 2
    photo = np.zeros((*shape, 3), np.uint8)
    picture = draw_numbers(photo, [face(0, 0, side), face(shape[1] - side, shape[0] - side, side)])
    height, width = picture.shape[:2]
    assert SIDES[0] <= max(height, width) <= SIDES[1]
    assert height == pytest.approx(shape[0] * width / shape[1], abs=1)
    drawn = plates(picture)
    # Of a thousandth of the picture's longer side, a plate has ten at least, and it hides no photo.
    for half in np.array_split(drawn, 2, axis=1):
        assert (max(height, width) / 100) ** 2 < half.sum() < 0.25 * half.size
    assert not photo.any()


def test_a_plate_hides_no_face_where_there_is_room():
    for top in (0, 300):
        picture = draw_numbers(np.zeros((700, 1024, 3), np.uint8), [face(100, top, 200)])
        assert not plates(picture)[top + 20 : top + 180, 120:280].any()


def test_faces_come_in_the_order_of_their_numbers_in_pixels_of_the_photo(tmp_path):
    Image.fromarray(data.astronaut()[:40, :32]).save(tmp_path / "a.png")
    job = Job(tmp_path / "a.png", tmp_path / "out" / "a.png")
    # The photo is enlarged to twice its size for the detector.
    found = finding(face(34, 4, 30), face(2, 40, 24))
    faces = number_faces(job, SIZE, FaceChoice(), found)
    np.testing.assert_allclose([one.box for one in faces], [[1, 20, 13, 32], [17, 2, 32, 17]])
    np.testing.assert_allclose(faces[1].landmarks, (face(34, 4, 30).landmarks + 0.5) / 2 - 0.5)
    assert plates(read_image(job.target)).any()
    assert number_faces(Job(job.source, tmp_path / "none.png"), SIZE, FaceChoice(min_face=20), found) == []
    assert not (tmp_path / "none.png").exists()


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """Runs the command on photos with two faces, one, none, and a file that is none; no network is loaded."""
    monkeypatch.chdir(tmp_path)
    miniature_model().save_pretrained("model")
    monkeypatch.setattr(InterLCM, "from_pretrained", None)
    for name, brightness in (("both", 2), ("one", 1), ("none", 0)):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.new("RGB", (200, 100), (brightness,) * 3).save(f"in/{name}.png")
    (tmp_path / "in" / "bad.png").write_text("bad")
    faces = [face(100, 10, 80), face(10, 20, 40)]
    monkeypatch.setattr("interlcm_jax.faces.load.MTCNN", lambda: lambda photo: faces[: photo[0, 0, 0]])

    def run(*options):
        return main(["restore", "in", "-o", "out", "--model", "model", "--list-faces", *options])

    return run


def test_the_command_lists_and_draws(listed, tmp_path, capsys):
    assert listed() == 1
    output = capsys.readouterr()
    assert output.out.splitlines() == [
        "in/both.png: 2 faces",
        "  0: from (10, 20) to (50, 60), 40 pixels, score 1.000",
        "  1: from (100, 10) to (180, 90), 80 pixels, score 1.000",
        "in/none.png: no faces",
        "in/one.png: 1 face",
        "  0: from (100, 10) to (180, 90), 80 pixels, score 1.000",
        "pictures with the faces' numbers are in out/numbered_faces",
    ]
    assert "failed: in/bad.png: not an image" in output.err
    written = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert written == ["numbered_faces/both.png", "numbered_faces/one.png"]


def test_the_command_lists_for_scripts_what_other_options_leave(listed, capsys):
    assert listed("--json", "--min-face", "50", "--faces", "5") == 1
    both, none, one = json.loads(capsys.readouterr().out)["photos"]
    expected = {"index": 0, "box": [100.0, 10.0, 180.0, 90.0], "size": 80.0, "score": 1.0}
    assert both == {"input": "in/both.png", "output": "out/numbered_faces/both.png", "faces": [expected]}
    assert none == {"input": "in/none.png", "output": None, "faces": []}
    assert one["faces"] == [expected]


def test_aligned_faces_have_no_numbers(listed, capsys):
    assert listed("--aligned") == 2
    assert "--list-faces looks for the faces of photos" in capsys.readouterr().err
