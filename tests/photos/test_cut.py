"""Faces cut out of photos, and the command that does it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from interlcm_jax.cli.main import main
from interlcm_jax.errors import InterLCMError
from interlcm_jax.faces.align import align
from interlcm_jax.faces.select import FaceChoice
from interlcm_jax.imaging.io import read_image
from interlcm_jax.photos.cut import cut_faces
from interlcm_jax.photos.plan import Job
from tests.photos.darkening import SIZE, face, finding


@pytest.fixture
def job(tmp_path):
    Image.fromarray(data.astronaut()[:256, :256]).save(tmp_path / "photo.png")
    return Job(tmp_path / "photo.png", tmp_path / "out" / "photo.png")


def test_the_largest_face_comes_first_and_small_ones_may_be_left_out(job):
    small, large = face(10, 10, 50), face(100, 90, 120, turn=20)
    assert [path.name for path in cut_faces(job, SIZE, finding(small, large))] == ["photo.png", "photo.2.png"]
    for path, one in zip(sorted(job.target.parent.iterdir(), reverse=True), (large, small), strict=True):
        np.testing.assert_array_equal(read_image(path), align(read_image(job.source), one.landmarks, SIZE)[0])
    assert len(cut_faces(job, SIZE, finding(small, large), min_size=60)) == 1
    assert cut_faces(job, SIZE, finding(small), min_size=60) == []


def test_only_some_of_the_faces(job):
    small, large = face(10, 10, 50), face(100, 90, 120)
    [path] = cut_faces(job, SIZE, finding(large, small), FaceChoice(faces="0"))
    np.testing.assert_array_equal(read_image(path), align(read_image(job.source), small.landmarks, SIZE)[0])
    with pytest.raises(InterLCMError, match=r"photo\.png: there is no face 2: the photo has 2 faces"):
        cut_faces(job, SIZE, finding(large, small), FaceChoice(faces="2"))


def test_the_command_names_what_it_could_not_do(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in/more").mkdir(parents=True)
    Image.fromarray(data.astronaut()).save("in/more/a.jpg")
    Image.fromarray(data.brick()).save("in/wall.png")
    Path("in/bad.png").write_bytes(b"bad")
    assert main(["align", "in", "-o", "faces", "--size", "128"]) == 1
    output = capsys.readouterr()
    assert "cut 1 faces of 128 pixels out of 3 photos into faces" in output.out
    assert "found no face in 1:\n  in/wall.png" in output.out
    assert "failed: in/bad.png: not an image" in output.err
    assert [path for path in Path("faces").rglob("*") if path.is_file()] == [Path("faces/more/a.png")]
    # A training set takes them.
    assert main(["dataset", "faces", "-o", "set", "--size", "128"]) == 0
    assert main(["align", "in/more", "-o", "none", "--faces", "1"]) == 1
    assert "failed: in/more/a.jpg: there is no face 1: the photo has 1 face" in capsys.readouterr().err
    assert main(["align", "in/more", "-o", "large", "--min-size", "400"]) == 0
    assert "found no face of 400 pixels or more in 1" in capsys.readouterr().out
    assert main(["align", "in", "-o", "x", "--size", "8"]) == 2
