"""Whole videos through the restoration, with made-up faces and without networks; and going on after a stop."""

import itertools

import numpy as np
import pytest

from interlcm_jax.errors import InterLCMError
from interlcm_jax.faces.steady import PICTURES
from interlcm_jax.photos.image import RestoreOptions
from interlcm_jax.photos.video import found, restore
from interlcm_jax.photos.video.encode import Encoding
from interlcm_jax.photos.video.restore import FINDING, RESTORING, restore_video
from tests.photos.video.clips import content, write_clip
from tests.photos.video.made import SIDE, Halving, detector, faces_moving, place

OPTIONS = RestoreOptions(upscale=1, leave_sharp="off")
COUNT, SEGMENT = 26, 8


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch):
    for module in (found, restore):
        monkeypatch.setattr(module, "SEGMENT", SEGMENT)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", faces_moving(COUNT), sound=True)


def run(source, target, model=None, options=OPTIONS, **others):
    parser = lambda faces: np.ones(faces.shape[:3])  # noqa: E731
    others = {"detector": detector, "parser": parser, "encoding": Encoding(crf=4), "workers": 2} | others
    return restore_video(model or Halving(), source, target, options, **others)


def middles(frame, i, which):
    """The mean color of a square's inner part."""
    left, top = place(i, which)
    inner = SIDE // 4
    return frame[top + inner : top + SIDE - inner, left + inner : left + SIDE - inner].reshape(-1, 3).mean(0)


def test_faces_are_restored_and_all_else_stays(clip, tmp_path):
    told = []
    model = Halving()
    counts = run(clip, tmp_path / "out.mp4", model, batch_size=3, seed=5, progress=lambda *each: told.append(each))
    assert counts == (2, 0)
    before, after = content(clip), content(tmp_path / "out.mp4")
    assert after.times == before.times
    assert after.packets == before.packets
    for i, (old, new) in enumerate(zip(before.frames, after.frames, strict=True)):
        for which in (0, 1):
            assert np.abs(middles(new, i, which) - middles(old, i, which) / 2).max() < 6, i
        assert np.abs(new[:12].astype(int) - old[:12]).mean() < 2
    # The options, the same noise for all frames among them, reach every segment; nothing else is left in the folder.
    assert model.options == [{"batch_size": 3, "seed": 5}] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert [done for what, done, _ in told if what == FINDING] == list(range(1, COUNT + 1))
    assert [done for what, done, _ in told if what == RESTORING] == list(range(COUNT + 1))
    assert {total for what, _, total in told if what == RESTORING} == {COUNT}


def test_frames_are_enlarged_when_asked(clip, tmp_path):
    run(clip, tmp_path / "out.mp4", options=RestoreOptions(upscale=1.5, leave_sharp="off"))
    frame = content(tmp_path / "out.mp4").frames[4]
    assert frame.shape == (144, 240, 3)
    left, top = (round(1.5 * (value + SIDE / 4)) for value in place(4, 0))
    assert np.abs(frame[top : top + 30, left : left + 30].mean((0, 1)) - [100, 45, 45]).max() < 6


def test_a_face_lost_for_some_frames_is_bridged_and_one_that_comes_is_faded_in(tmp_path):
    frames = faces_moving(COUNT)
    source = write_clip(tmp_path / "a.mkv", frames)

    def forgetful(pixels):
        seen.append(pixels)
        return detector(pixels)[: 1 if 10 <= len(seen) - 1 < 14 or len(seen) < 4 else 2]

    seen = []
    assert run(source, tmp_path / "b.mkv", detector=forgetful, workers=1) == (2, 0)
    after = content(tmp_path / "b.mkv").frames
    brightness = [middles(frame, i, 1).mean() / middles(frames[i], i, 1).mean() for i, frame in enumerate(after)]
    assert np.allclose(brightness[:3], 1, atol=0.06)
    assert (np.diff(brightness[2:8]) < -0.05).all()
    assert np.allclose(brightness[8:], 0.5, atol=0.06)


def test_each_face_is_left_or_restored_for_all_of_its_track(clip, tmp_path):
    # Each is now above the bound and now below: the red one mostly above, the blue one mostly below.
    red, blue = itertools.cycle([0.9, 0.1, 0.9]), itertools.cycle([0.1, 0.9, 0.1])

    def detail(face, enlarged):
        return next(red if face[32, 32, 0] > face[32, 32, 2] else blue)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(found, "detail", detail)
        options = RestoreOptions(upscale=1, leave_sharp=0.5)
        assert run(clip, tmp_path / "out.mp4", options=options, workers=1) == (1, 1)
    for i, frame in enumerate(content(tmp_path / "out.mp4").frames):
        assert middles(frame, i, 0).max() > 180, i
        assert middles(frame, i, 1).max() < 120, i


@pytest.mark.parametrize(
    "choice", [{"faces": "center"}, {"faces": "largest"}, {"faces": "1"}, {"faces": "0,7"}, {"max_faces": 1}], ids=str
)
def test_faces_are_chosen_by_track(choice, clip, tmp_path):
    options = RestoreOptions(upscale=1, leave_sharp="off", **choice)
    assert run(clip, tmp_path / "out.mp4", options=options) == (1, 0)


def test_a_face_that_no_frame_has_is_named(clip, tmp_path):
    with pytest.raises(InterLCMError, match="no face is number 7, from left to right, in most of its frames"):
        run(clip, tmp_path / "out.mp4", options=RestoreOptions(upscale=1, leave_sharp="off", faces="7"))


def test_what_is_restored_is_free_of_noise_that_changes(tmp_path):
    rng = np.random.default_rng(0)
    noisy = [np.clip(frame + rng.normal(0, 10, frame.shape), 0, 255).astype(np.uint8) for frame in faces_moving(COUNT)]
    source = write_clip(tmp_path / "a.mkv", noisy, codec="ffv1", pix_fmt="bgr0")
    taken = []
    run(source, tmp_path / "b.mkv", Halving(lambda face: taken.append(face) or face))
    inner = np.stack(taken[::2])[SEGMENT : 2 * SEGMENT, 24:40, 24:40].astype(float)
    assert inner.std(axis=(1, 2)).mean() < 0.6 * 10


def test_without_faces_nothing_is_written(clip, tmp_path):
    assert run(clip, tmp_path / "out.mp4", detector=lambda pixels: []) == (0, 0)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_done(clip, tmp_path):
    for source, target, options, message in (
        (tmp_path / "a.mp4", tmp_path / "b.mp4", OPTIONS, r"a\.mp4: no such file"),
        (clip, tmp_path / "b.avi", OPTIONS, r"b\.avi: the suffix must be one of \.mp4, "),
        (clip, tmp_path / "b.mp4", RestoreOptions(aligned=True), "aligned faces are images"),
    ):
        with pytest.raises(InterLCMError, match=message):
            run(source, target, options=options)
    with pytest.raises(InterLCMError, match=r"NaN or infinity for a face in frame 0"):
        run(clip, tmp_path / "b.mp4", Halving(lambda face: None))


class StoppedError(Exception):
    pass


@pytest.mark.parametrize(
    "point", [(FINDING, 3), (FINDING, SEGMENT + 4), (RESTORING, 2), (RESTORING, 2 * SEGMENT + 3), ("join", 0)]
)
def test_a_stopped_run_goes_on_and_gives_the_same_file(clip, tmp_path, monkeypatch, point):
    run(clip, tmp_path / "whole.mp4", batch_size=2)

    def stop(what, done, total):
        if (what, done) == point:
            raise StoppedError

    with monkeypatch.context() as patch:
        if point[0] == "join":
            patch.setattr("interlcm_jax.photos.video.join.decoding_times", lambda pts: stop("join", 0, 0))
        with pytest.raises(StoppedError):
            run(clip, tmp_path / "out.mp4", batch_size=2, progress=stop)
    assert not (tmp_path / "out.mp4").exists()
    told = []
    run(clip, tmp_path / "out.mp4", batch_size=2, progress=lambda what, done, total: told.append((what, done)))
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4", "whole.mp4"]
    # Segments that were done are not done again.
    kept = 0 if point[0] == FINDING else COUNT if point[0] == "join" else (point[1] - PICTURES) // SEGMENT * SEGMENT
    assert len([done for what, done in told if what == RESTORING]) <= COUNT - kept + 1
    if point != (FINDING, 3):
        assert len([done for what, done in told if what == FINDING]) <= COUNT - SEGMENT


def test_other_options_or_another_clip_start_afresh(clip, tmp_path):
    def stop(what, done, total):
        if (what, done) == (RESTORING, 2 * SEGMENT):
            raise StoppedError

    for encoding in (Encoding(crf=30), Encoding(crf=4)):
        with pytest.raises(StoppedError):
            run(clip, tmp_path / "out.mp4", encoding=encoding, progress=stop)
    run(clip, tmp_path / "whole.mp4")
    run(clip, tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
