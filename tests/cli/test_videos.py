"""`interlcm restore` on videos: what it takes, its options, a bad one beside good ones, and PyAV missing."""

import json
import sys
from pathlib import Path

import pytest

from interlcm_jax import InterLCM
from interlcm_jax.cli.main import main
from interlcm_jax.errors import InterLCMError
from interlcm_jax.photos.image import RestoreOptions
from interlcm_jax.photos.plan import Job
from interlcm_jax.photos.video import restore as video_restore
from interlcm_jax.photos.video.encode import Encoding
from interlcm_jax.photos.video.names import plan_videos, split_videos
from tests.cli.aligned_faces import face
from tests.miniature import miniature_model

pytestmark = pytest.mark.usefixtures("empty_folder")


@pytest.fixture
def seen(monkeypatch):
    """Calls of `restore_video`, which fails for files called bad."""
    calls = []

    def restore_video(model, source, target, options, *, progress, detector, parser, **others):
        progress("finding faces", 1, 0)
        progress("restoring", 2, 2)
        calls.append((source, target, options, others))
        if source.stem == "bad":
            raise InterLCMError(f"{source}: the file is cut off")
        return 2, 1

    monkeypatch.setattr(video_restore, "restore_video", restore_video)
    monkeypatch.setattr(InterLCM, "from_pretrained", classmethod(lambda cls, *where, **how: miniature_model()))
    return calls


def test_videos_beside_images_and_a_bad_one(model, seen, monkeypatch, capsys):
    monkeypatch.setattr(InterLCM, "restore_all", lambda self, faces, **options: faces)
    face(Path("wall.png"))
    for name in ("a.mp4", "bad.MOV", "c.avi"):
        Path(name).touch()
    assert main(["restore", "--model", str(model), "*.*", "-o", "out", "--json", "--seed", "3"]) == 1
    summary = json.loads(capsys.readouterr().out)
    assert [entry["output"] for entry in summary["restored"]] == ["out/a.mp4", "out/c.mkv"]
    assert summary["restored"][0]["faces"] == 2
    assert summary["failed"] == [{"input": "bad.MOV", "error": "bad.MOV: the file is cut off"}]
    assert summary["no_face"] == ["wall.png"]
    assert [(source.name, options.upscale, others["seed"]) for source, _, options, others in seen] == [
        ("a.mp4", 1, 3),
        ("bad.MOV", 1, 3),
        ("c.avi", 1, 3),
    ]


def test_options_of_videos(model, seen, capsys):
    Path("a.mp4").touch()
    flags = ["--video-crf", "20", "--video-encoder", "libx265", "--upscale", "2", "--batch-size", "4", "--workers", "3"]
    assert main(["restore", "--model", str(model), "a.mp4", "-o", "out", *flags, "--only-center-face"]) == 0
    [(source, target, options, others)] = seen
    assert (source, target) == (Path("a.mp4"), Path("out/a.mp4"))
    assert options == RestoreOptions(upscale=2, faces="center")
    assert others["encoding"] == Encoding("libx265", 20)
    assert (others["batch_size"], others["workers"]) == (4, 3)
    assert "restored 1 of 1 files (2 faces) into out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.mp4", "--video-encoder", "mpeg2"], "video encoder is 'mpeg2', but must be one of"),
        (["a.mp4", "--video-crf", "60"], "libx264 takes 0 to 51"),
        (["a.mp4", "--aligned"], "a.mp4: --aligned is for images of one face"),
        (["a.mp4", "-o", "."], "results would replace these inputs: a.mp4"),
    ],
)
def test_requests_that_cannot_be_carried_out(model, seen, capsys, arguments, message):
    Path("a.mp4").touch()
    assert main(["restore", "--model", str(model), "-o", "out", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not seen


def test_pyav_missing(model, monkeypatch, capsys):
    Path("a.mp4").touch()
    monkeypatch.setitem(sys.modules, "av", None)
    for name in [name for name in sys.modules if name.startswith("interlcm_jax.photos.video.")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["restore", "--model", str(model), "a.mp4", "-o", "out"]) == 2
    assert "videos need PyAV: pip install 'interlcm-jax[video]' brings it" in capsys.readouterr().err


def test_names_of_results():
    videos = [Path("x/a.mp4"), Path("y/a.mp4"), Path("a.avi"), Path("a.mkv"), Path("b.M4V")]
    assert plan_videos(videos, Path("out")) == [
        Job(Path("x/a.mp4"), Path("out/x/a.mp4")),
        Job(Path("y/a.mp4"), Path("out/y/a.mp4")),
        Job(Path("a.avi"), Path("out/a.avi.mkv")),
        Job(Path("a.mkv"), Path("out/a.mkv.mkv")),
        Job(Path("b.M4V"), Path("out/b.mp4")),
    ]


def test_folders_are_searched_for_images_only():
    Path("clip.mp4").mkdir()
    Path("a.mp4").touch()
    assert split_videos([Path("clip.mp4"), Path("a.mp4"), Path("*.jpg")]) == (
        [Path("a.mp4")],
        [Path("clip.mp4"), Path("*.jpg")],
    )
