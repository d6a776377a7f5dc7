"""Which files a command takes, and what it calls their results."""

import errno
import os
from pathlib import Path

import pytest

from interlcm_jax.errors import InterLCMError
from interlcm_jax.photos.plan import plan, unfinished


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.png", "in/sub/b.JPG", "in/sub/deeper/a.webp", "in/notes.txt", "other/a.png", "single [1].png"):
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def pairs(*inputs, **options):
    return [
        (job.source.as_posix(), job.target.as_posix())
        for job in plan([Path(i) for i in inputs], Path("out"), **options)
    ]


def test_folders_are_searched_and_keep_their_structure():
    found = [
        ("in/a.png", "out/a.png"),
        ("in/sub/b.JPG", "out/sub/b.png"),
        ("in/sub/deeper/a.webp", "out/sub/deeper/a.png"),
    ]
    assert pairs("in") == found


def test_every_process_of_a_run_sees_the_same_order(monkeypatch):
    found = pairs("in")
    original = os.walk
    monkeypatch.setattr(os, "walk", lambda *folder, **options: reversed(list(original(*folder, **options))))
    assert pairs("in") == found == sorted(found)


def test_a_folder_called_like_an_image_is_a_folder():
    Path("in/sub.png").mkdir()
    assert len(pairs("in")) == 3


def test_patterns_are_expanded_and_files_go_to_the_top():
    assert pairs("in/**/a.*") == [("in/a.png", "out/in/a.png"), ("in/sub/deeper/a.webp", "out/deeper/a.png")]
    assert pairs("in/*.png", suffix=".jpg") == [("in/a.png", "out/a.jpg")]
    with pytest.raises(InterLCMError, match=r"in/\*.bmp: no file matches"):
        pairs("in/*.bmp")


def test_a_file_whose_name_looks_like_a_pattern_is_that_file():
    assert pairs("single [1].png") == [("single [1].png", "out/single [1].png")]


def test_what_is_not_there_is_left_to_reading():
    assert pairs("missing.png") == [("missing.png", "out/missing.png")]


def test_a_folder_that_may_not_be_searched_is_left_to_reading_too(monkeypatch):
    original = os.scandir

    def scandir(folder):
        if str(folder).endswith("deeper"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return original(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    assert pairs("in")[-1] == ("in/sub/deeper", "out/sub/deeper.png")


def test_a_file_in_a_folder_that_may_not_be_entered_is_left_to_reading_too(monkeypatch):
    original = os.stat

    def stat(path, *arguments, **options):
        if str(path).endswith("in/a.png"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return original(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", stat)
    assert pairs("in/a.png") == [("in/a.png", "out/a.png")]


def test_links_in_a_circle_are_left_to_reading_too():
    Path("in/loop.png").symlink_to("loop.png")
    Path("in/nowhere.png").symlink_to("absent.png")
    assert {("in/loop.png", "out/loop.png"), ("in/nowhere.png", "out/nowhere.png")} < set(pairs("in"))


def test_results_in_an_input_folder_are_no_inputs(tmp_path):
    inside = Path("in/restored")
    inside.mkdir()
    (inside / "a.png").touch()
    assert len(plan([Path("in")], inside)) == 3
    # Restoring what was restored is what one asked for here, and here in another format into the same folder.
    assert len(plan([inside], Path("out"))) == 1
    assert len(plan([inside], inside, ".jpg")) == 1


def test_the_same_name_in_two_folders_costs_neither():
    found = pairs("in", "other")
    assert found[0] == ("in/a.png", "out/in/a.png")
    assert found[-1] == ("other/a.png", "out/other/a.png")
    assert sorted(pairs("other", "in")) == sorted(found)


def test_a_result_never_takes_the_name_of_another_images():
    """Whatever a folder gains or loses between two runs."""
    names = ("x.jpg", "x.png", "x.webp")
    for name in names:
        Path("in", name).touch()
    assert {(f"in/{name}", f"out/{name}.png") for name in names} < set(pairs("in"))
    Path("in/x.jpg").unlink()
    assert ("in/x.webp", "out/x.webp.png") in pairs("in")


def test_an_empty_file_or_a_folder_is_no_result():
    jobs = plan(["in"], Path("out"))
    Path("out/sub").mkdir(parents=True)
    Path("out/a.png").touch()
    Path("out/sub/b.png").mkdir()
    assert unfinished(jobs) == jobs
    Path("out/a.png").write_bytes(b"done")
    assert unfinished(jobs) == jobs[1:]


def test_inputs_are_not_replaced():
    with pytest.raises(InterLCMError, match=r"would replace these inputs: in/a\.png; choose another folder"):
        plan([Path("in/a.png")], Path("in"))


def test_folders_for_other_files_are_reserved():
    Path("in/sub").rename("in/comparisons")
    with pytest.raises(InterLCMError, match="an inner folder of the input is called comparisons"):
        pairs("in", comparison=True)
    assert pairs("in", save_faces=True)


def test_a_folder_without_images():
    Path("empty").mkdir()
    with pytest.raises(InterLCMError, match=r"empty: no images in this folder \(\.apng, "):
        pairs("empty")
