"""Paths in a bucket: as a disk's, but for what buckets can't do; and every failure in one sentence."""

import concurrent.futures
import errno
import io

import numpy as np
import pytest
from safetensors.numpy import save

from interlcm_jax.errors import InterLCMError, WeightsError
from interlcm_jax.files import bucket as bucket_module
from interlcm_jax.files.atomic import check_absent, whole_file, whole_folder
from interlcm_jax.files.bucket_errors import PATIENCE_VARIABLE
from interlcm_jax.files.paths import to_path
from interlcm_jax.files.safetensors import open_safetensors

SCHEMES = pytest.mark.parametrize("scheme", ["gs", "s3"])


@SCHEMES
def test_an_object_is_read_and_written_as_a_file(bucket, scheme, tmp_path):
    folder = to_path(f"{scheme}://bucket/a")
    path = folder / "b c.bin"
    assert not path.exists()
    assert not folder.is_dir()
    path.write_bytes(b"0123456789")
    (folder / "d" / "e.json").write_text("{}")
    assert path.is_file()
    assert not path.is_dir()
    assert folder.is_dir()
    assert not folder.is_file()
    assert path.stat().st_size == 10
    assert path.read_bytes() == b"0123456789"
    assert path.read_range(2, 5) == b"234"
    with path.open("rb") as file:
        file.seek(-3, io.SEEK_END)
        assert file.read() == b"789"
    assert (folder / "d" / "e.json").read_text() == "{}"
    assert sorted(folder.iterdir()) == [path, folder / "d"]
    assert list(folder.glob("*.bin")) == [path]
    assert list(folder.rglob("*.json")) == [folder / "d" / "e.json"]
    assert folder.files() == {path: 10, folder / "d" / "e.json": 2}
    path.download(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"0123456789"
    (folder / "d").rename(folder / "f")
    path.unlink()
    assert bucket.names() == ["a/f/e.json"]
    folder.rmtree()
    assert not bucket.objects


def test_what_another_process_writes_is_seen(bucket):
    folder = to_path("gs://bucket/a")
    assert list(folder.parent.iterdir()) == []
    bucket.put("a/b", b"1")
    assert list(folder.iterdir()) == [folder / "b"]
    bucket.put("a/c", b"1")
    assert list(folder.iterdir()) == [folder / "b", folder / "c"]
    bucket.delete("a/c")
    bucket.put("a/b", b"22")
    assert (folder / "b").stat().st_size == 2
    bucket.delete("a/b")
    assert not (folder / "b").exists()


def fail_after_writing(path):
    path.write_text("half")
    raise RuntimeError


@SCHEMES
def test_a_folder_is_there_with_its_last_object(bucket, scheme):
    out = to_path(f"{scheme}://bucket/model")
    with pytest.raises(RuntimeError), whole_folder(out, "config.json") as folder:
        fail_after_writing(folder / "config.json")
    assert not bucket.objects
    bucket.put("model/half", b"of a process that was killed")
    with whole_folder(out, "config.json") as folder:
        (folder / "config.json").write_text("{}")
        (folder / "inner").mkdir()
        for name in ("a", "z", "inner/b"):
            (folder / name).write_text(name)
        assert bucket.names() == ["model/half"]
    assert bucket.written.index("model/config.json") == len(bucket.written) - 1
    assert bucket.names("model/") == ["model/a", "model/config.json", "model/half", "model/inner/b", "model/z"]
    with pytest.raises(InterLCMError, match="model: exists already"):
        check_absent(out, "config.json")


def test_a_file_appears_whole(bucket):
    path = to_path("gs://bucket/a.bin")
    with pytest.raises(RuntimeError), whole_file(path) as temporary:
        fail_after_writing(temporary)
    assert not bucket.objects
    # Of several requests: what is larger than 5 MB is sent in parts.
    with whole_file(path) as temporary:
        temporary.write_bytes(b"whole" * 1_300_000)
    assert bucket.objects["a.bin"] == b"whole" * 1_300_000
    assert path.read_bytes() == bucket.objects["a.bin"]


@SCHEMES
def test_every_failure_is_one_sentence(bucket, scheme):
    other = to_path(f"{scheme}://elsewhere/a")
    with pytest.raises(InterLCMError, match=r"^..://elsewhere/a: there is no bucket elsewhere, or it isn't yours$"):
        other.write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"^..://elsewhere/a: no such file or folder$"):
        other.read_bytes()
    path = to_path(f"{scheme}://bucket/a")
    bucket.forbidden = True
    for call in (path.exists, path.read_bytes, path.stat, lambda: path.write_bytes(b"")):
        with pytest.raises(
            InterLCMError, match=r"^..://bucket/a: no permission \(Forbidden.*allowed to list"
        ) as raised:
            call()
        assert raised.value.errno == errno.EACCES
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (type("NoCredentialsError", (Exception,), {})("Unable to locate credentials"), "no login for this bucket"),
        (TimeoutError(), "no answer in 1 s"),
        (OSError(errno.EBUSY, "Service Unavailable"), "no answer in 1 s"),
        (ValueError("Bad Request: b/bucket/o\nwhy"), "Bad Request: b/bucket/o why"),
    ],
)
def test_other_libraries_errors_have_their_sentence(bucket, monkeypatch, error, words):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(bucket_module.PatientGCS, "cat_file", fail)
    with pytest.raises(InterLCMError, match=f"^gs://bucket/a: {words}"):
        to_path("gs://bucket/a").read_bytes()


def test_a_request_that_fails_is_made_again(bucket, monkeypatch):
    monkeypatch.setenv(PATIENCE_VARIABLE, "60")
    monkeypatch.setattr(bucket_module, "FIRST_WAIT", 0.01)
    bucket.failing = 0.3

    def round_trip(i):
        path = to_path(f"gs://bucket/{i}")
        path.write_bytes(bytes([i]) * 10_000)
        assert path.read_bytes() == bytes([i]) * 10_000
        assert path.exists()

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(round_trip, range(24)))


def test_patience_ends(bucket, monkeypatch):
    monkeypatch.setattr(bucket_module, "FIRST_WAIT", 0.1)
    bucket.down = True
    with pytest.raises(InterLCMError, match=r"no answer in 1 s \(down, 503\); when the bucket is back, the same"):
        to_path("gs://bucket/a").read_bytes()
    assert bucket.requests["GET"] > 2


def test_writing_by_parts_is_refused(bucket):
    with pytest.raises(io.UnsupportedOperation, match="gs://bucket/a: objects are written whole"):
        to_path("gs://bucket/a").open("wb")


def test_tensors_are_read_by_ranges(bucket):
    tensors = {"a": np.arange(24, dtype=np.float32).reshape(6, 4), "b": np.float32(3), "c": np.zeros((0, 2), np.uint8)}
    bucket.put("w.safetensors", save({name: np.asarray(array) for name, array in tensors.items()}))
    lazy = open_safetensors(to_path("gs://bucket/w.safetensors"))
    head = bucket.read["w.safetensors"]
    for name, array in tensors.items():
        np.testing.assert_array_equal(lazy[name].read(), array)
        assert lazy[name].dtype == np.asarray(array).dtype
    bucket.read.clear()
    np.testing.assert_array_equal(lazy["a"].read((slice(2, 4), slice(1, 3))), tensors["a"][2:4, 1:3])
    # Two rows, once for both parts of them.
    np.testing.assert_array_equal(lazy["a"].read((slice(2, 4), slice(3, 4))), tensors["a"][2:4, 3:4])
    assert bucket.read["w.safetensors"] == 2 * 4 * 4
    assert head == len(bucket.objects["w.safetensors"]) - 6 * 4 * 4 - 4


def test_a_cut_file_of_weights_is_refused(bucket):
    whole = save({"a": np.ones((4, 4), np.float32)})
    for data in (whole[:-1], whole + b"x", whole[:9], b"", b"<html>"):
        bucket.put("w.safetensors", data)
        with pytest.raises(WeightsError, match=r"^gs://bucket/w.safetensors: not a whole safetensors file"):
            open_safetensors(to_path("gs://bucket/w.safetensors"))
