"""Copies to a bucket, in whose place there is a folder; `etils.epath` is the same for both."""

import time

import pytest
from etils import epath

from interlcm_jax.errors import InterLCMError
from interlcm_jax.training.mirror import Mirror


@pytest.fixture
def local(tmp_path):
    folder = tmp_path / "local"
    (folder / "tensorboard").mkdir(parents=True)
    return folder


@pytest.fixture
def bucket(tmp_path):
    return epath.Path(tmp_path) / "bucket" / "run"


def test_what_has_changed_is_copied_whole_and_in_order(local, bucket, monkeypatch):
    copied = []
    write_bytes = type(bucket).write_bytes

    def note(path, content):
        copied.append(path.relative_to(bucket).as_posix())
        return write_bytes(path, content)

    monkeypatch.setattr(type(bucket), "write_bytes", note)
    mirror = Mirror(local, bucket, every=1000)
    for name in ("b", "a", ".c.partial"):
        (local / "tensorboard" / name).write_text(name)
    assert mirror.copy() is None
    assert copied == ["tensorboard/a", "tensorboard/b"]
    (local / "tensorboard" / "b").write_text("more")
    mirror.close(0)
    assert copied == ["tensorboard/a", "tensorboard/b", "tensorboard/b"]
    assert (bucket / "tensorboard" / "b").read_text() == "more"


def test_it_copies_by_itself(local, bucket):
    mirror = Mirror(local, bucket, every=0.01)
    (local / "log").write_text("1")
    until = time.monotonic() + 20
    while not (bucket / "log").exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    mirror.close(0)


def test_a_bucket_that_fails_for_a_while_is_made_up_for(local, bucket, monkeypatch, capsys):
    down = [True, True]
    write_bytes = type(bucket).write_bytes

    def fail(path, content):
        if down and down.pop():
            raise OSError("503 Service Unavailable")
        return write_bytes(path, content)

    monkeypatch.setattr(type(bucket), "write_bytes", fail)
    mirror = Mirror(local, bucket, every=0.5)
    (local / "log").write_text("1")
    mirror.copy()
    mirror.close(20)
    assert (bucket / "log").read_text() == "1"
    assert capsys.readouterr().err.count("bucket/run: can't be written (503 Service Unavailable); tried again") == 1


def test_a_bucket_that_never_answers_is_named(local, bucket):
    (bucket.parent).mkdir(parents=True)
    bucket.write_text("a file in the folder's place")
    mirror = Mirror(local, bucket, every=1000)
    (local / "log").write_text("1")
    with pytest.raises(InterLCMError, match=r"bucket/run: the log can't be written \(.*\); it is whole in .*local"):
        mirror.close(0)
