"""Downloads that are cut off, go on, start again or fail: against a server on this machine."""

import errno
import hashlib
import io
import logging
import shutil
from pathlib import Path

import pytest

from interlcm_jax.errors import InterLCMError
from interlcm_jax.files import fetch as fetch_module
from interlcm_jax.files.fetch import fetch
from tests.file_server import DATA, file_server

CHANGED = DATA[::-1] + b"more"
HALF = len(DATA) // 2


def left(path):
    """Names in the folder, when all is done and well."""
    return sorted(entry.name for entry in path.parent.iterdir())


def partial(path):
    """Where an interrupted download keeps what came."""
    return next(path.parent.glob("weights.pth.*.partial"))


def interrupted(server, path, at=HALF):
    server.cuts["/file"] = [at]
    with pytest.raises(InterLCMError):
        fetch(f"{server.url}/file", path)
    assert len(left(path)) == 1
    assert partial(path).stat().st_size == at
    server.log.clear()


def test_a_file_comes_whole_and_is_not_asked_for_again(server, path):
    seen = []
    digest = hashlib.sha256(DATA).hexdigest()
    fetch(f"{server.url}/file", path, size=len(DATA), sha256=digest, progress=lambda *report: seen.append(report))
    assert path.read_bytes() == DATA
    assert left(path) == ["weights.pth"]
    assert (seen[0], seen[-1]) == (("weights.pth", 0, len(DATA)), ("weights.pth", len(DATA), len(DATA)))
    fetch(f"{server.url}/file", path)
    assert server.asked("/file") == [0]
    # A file of another size is another version's.
    server.files["/file"] = CHANGED
    fetch(f"{server.url}/file", path, size=len(CHANGED))
    assert path.read_bytes() == CHANGED


@pytest.mark.usefixtures("once")
def test_only_the_missing_bytes_are_asked_for(server, path):
    interrupted(server, path)
    seen = []
    fetch(f"{server.url}/file", path, progress=lambda label, count, total: seen.append(count))
    assert path.read_bytes() == DATA
    assert left(path) == ["weights.pth"]
    # Which version the server has is asked first.
    assert server.log == [("/file", 0, None), ("/file", HALF, f'"{hashlib.sha256(DATA).hexdigest()}"')]
    assert seen[0] == HALF


@pytest.mark.usefixtures("once")
def test_what_an_exception_interrupts_goes_on_too(server, path):
    def stop(label, count, total):
        if count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(f"{server.url}/file", path, progress=stop)
    count = partial(path).stat().st_size
    assert count > 0
    fetch(f"{server.url}/file", path)
    assert path.read_bytes() == DATA
    # All may have come in one piece: then nothing is left to ask for.
    assert server.asked("/file") == ([0, 0] if count == len(DATA) else [0, 0, count])


def test_lost_connections_are_tried_again(server, path, caplog):
    server.cuts["/file"] = [10, None, 0, None, 100]
    with caplog.at_level(logging.WARNING):
        fetch(f"{server.url}/file", path)
    assert path.read_bytes() == DATA
    assert server.asked("/file") == [0, 0, 10, 0, 10, 0, 110]
    assert "weights.pth: the connection failed (peer closed connection" in caplog.text
    assert "received 10 bytes, expected 10240)); trying again in 0 s (1 of 5)" in caplog.text


def test_a_connection_that_keeps_ending_but_brings_something_is_not_given_up(server, path):
    server.cuts["/file"] = [100, *[None, 100] * (2 * fetch_module.RETRIES)]
    fetch(f"{server.url}/file", path)
    assert path.read_bytes() == DATA


def test_a_server_in_trouble_is_asked_again(server, path):
    server.codes = [503, 429, 500]
    fetch(f"{server.url}/file", path)
    assert path.read_bytes() == DATA


@pytest.mark.parametrize("heeds", [True, False])
def test_a_file_that_changed_meanwhile_starts_again(server, path, monkeypatch, heeds):
    with monkeypatch.context() as context:
        context.setattr(fetch_module, "RETRIES", 0)
        interrupted(server, path)
    server.files["/file"], server.heeds_if_range = CHANGED, heeds
    fetch(f"{server.url}/file", path)
    assert path.read_bytes() == CHANGED
    assert server.asked("/file") == [0]
    assert left(path) == ["weights.pth"]


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize("heeds", [True, False])
def test_a_file_that_changes_just_after_its_version_was_asked_is_not_mixed(server, path, heeds):
    interrupted(server, path)
    server.heeds_if_range = heeds
    server.changes["/file"] = [CHANGED]
    with pytest.raises(InterLCMError, match="the file has changed meanwhile"):
        fetch(f"{server.url}/file", path)
    assert left(path) == []


def test_a_file_that_became_shorter_starts_again(server, path, monkeypatch):
    with monkeypatch.context() as context:
        context.setattr(fetch_module, "RETRIES", 0)
        interrupted(server, path)
    server.files["/file"], server.heeds_if_range = DATA[:100], False
    fetch(f"{server.url}/file", path)
    assert path.read_bytes() == DATA[:100]


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize("headers", [{"ETag": None}, {"ETag": 'W/"weak"'}])
def test_without_a_strong_validator_all_is_asked_for(server, path, headers):
    server.headers = headers
    interrupted(server, path)
    fetch(f"{server.url}/file", path)
    assert path.read_bytes() == DATA
    assert server.asked("/file") == [0]


@pytest.mark.usefixtures("once")
def test_a_date_is_a_validator_too(server, path):
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    server.headers = {"ETag": None, "Last-Modified": date}
    interrupted(server, path)
    fetch(f"{server.url}/file", path)
    assert path.read_bytes() == DATA
    assert server.log == [("/file", 0, None), ("/file", HALF, date)]


def test_a_server_without_ranges_sends_all(server, path):
    server.cuts["/file"] = [HALF]
    server.takes_ranges = False
    fetch(f"{server.url}/file", path)
    assert path.read_bytes() == DATA


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize("count", [len(DATA), len(DATA) + 1])
def test_bytes_that_are_there_are_not_trusted_beyond_the_files_size(server, path, count):
    interrupted(server, path)
    partial(path).write_bytes((DATA + b"more")[:count])
    fetch(f"{server.url}/file", path)
    assert path.read_bytes() == DATA
    assert server.asked("/file") == [0]


def test_a_connection_that_always_ends_is_given_up_and_what_came_is_kept(server, path):
    server.cuts["/file"] = [100, *[None, 0] * 10]
    with pytest.raises(InterLCMError) as raised:
        fetch(f"{server.url}/file", path)
    assert str(raised.value) == (
        f"{server.url}/file: the download failed 6 times, the last time because the connection failed (peer closed "
        f"connection without sending complete message body (received 0 bytes, expected {len(DATA) - 100})); check the "
        "connection, then give the same command again: it goes on with what came"
    )
    assert server.asked("/file") == [0, *[0, 100] * 5]
    assert partial(path).read_bytes() == DATA[:100]
    assert not path.exists()


@pytest.mark.parametrize(("code", "gist"), [(404, "moved or withdrawn"), (403, "the server refuses it")])
def test_a_refusal_is_final(server, path, code, gist):
    server.codes = [code]
    url = f"{server.url}/file" if code != 404 else f"{server.url}/absent"
    with pytest.raises(InterLCMError, match=rf"{url}: {code} .*{gist}.* weights\.pth can't be downloaded"):
        fetch(url, path)
    assert len(server.log) == 1


def test_no_connection(path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetch_module, "FIRST_WAIT", 0.0)
    with file_server() as gone:
        pass
    with pytest.raises(InterLCMError, match=rf"{gone.url}/file: the download failed 6 times.* the same command"):
        fetch(f"{gone.url}/file", path)


def test_what_is_not_what_the_hub_lists(server, path):
    with pytest.raises(InterLCMError, match=f"{len(DATA)} bytes instead of 7"):
        fetch(f"{server.url}/file", path, size=7)
    with pytest.raises(InterLCMError, match="SHA-256 differs"):
        fetch(f"{server.url}/file", path, sha256="0" * 64)
    # What is wrong isn't gone on with.
    assert left(path) == []


def test_a_full_disk_is_told_before(server, path, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=len(DATA) - 1))
    with pytest.raises(InterLCMError, match=r"the disk is too full: 0\.00 GB are needed"):
        fetch(f"{server.url}/file", path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=len(DATA)))
    fetch(f"{server.url}/file", path)


def test_a_disk_that_becomes_full(server, path, monkeypatch):
    class Full(io.FileIO):
        def write(self, data):
            if self.tell() == 100:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data[: 100 - self.tell()])

    def full(file, mode="r", *rest, **options):
        return Full(file, mode) if mode == "ab" else opened(file, mode, *rest, **options)

    opened = Path.open
    with monkeypatch.context() as context:
        context.setattr(Path, "open", full)
        with pytest.raises(InterLCMError, match=rf"{path}: can't be written \(No space left on device\)"):
            fetch(f"{server.url}/file", path)
    fetch(f"{server.url}/file", path)
    assert path.read_bytes() == DATA
    assert server.asked("/file") == [0, 0, 100]
