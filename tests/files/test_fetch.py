"""Downloads that are cut off, go on, start again or fail: against a server on this machine."""

import asyncio
import errno
import functools
import hashlib
import io
import itertools
import logging
import shutil
import time
from pathlib import Path

import httpx2
import pytest

from interlcm_jax.errors import InterLCMError
from interlcm_jax.files import fetch as fetch_module
from interlcm_jax.files import http
from interlcm_jax.files.fetch import fetch
from tests.file_server import file_server

DATA = bytes(range(256)) * 40
CHANGED = DATA[::-1] + b"more"
HALF = len(DATA) // 2


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetch_module, "FIRST_WAIT", 0.0)
    monkeypatch.setattr(fetch_module, "LEAST", 1)
    with file_server() as served:
        served.files["/file"] = DATA
        yield served


@pytest.fixture
def once(monkeypatch):
    """The first lost connection ends a download, as Ctrl-C or the end of the process would."""
    monkeypatch.setattr(fetch_module, "RETRIES", 0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "weights.pth"


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


def answer(headers, *parts, pause=0.0, status="200 OK"):
    """A script of a server: status, headers, and the parts of a body with a pause before each."""

    def script(send):
        send(f"HTTP/1.1 {status}\r\n{headers}\r\n".encode())
        for part in parts:
            time.sleep(pause)
            send(part)

    return script


def dripping_headers(send):
    for letter in b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 100:
        send(bytes([letter]))
        time.sleep(0.02)


STATED = f'Content-Length: {len(DATA)}\r\nETag: "a"\r\n'


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize(
    ("script", "message"),
    [
        (lambda send: time.sleep(1), "less than 1 bytes came"),
        (dripping_headers, "less than 1 bytes came"),
        (answer(STATED, *[b""] * 20, pause=0.05), "less than 1 bytes came"),
        (lambda send: send(b"\0\1\2"), "the connection failed"),
        (answer("X: " + "a" * 200_000 + "\r\n"), "the connection failed"),
        (answer(STATED + "Content-Encoding: gzip\r\n", DATA), "the server compresses"),
        (answer("", DATA), "doesn't say how long it is"),
        (answer("", status="204 No Content"), "204 No Content; the server refuses it"),
        (answer("Content-Range: bytes 0-1/2\r\n" + STATED, DATA, status="206 Partial Content"), "206 Partial Content"),
        (answer("Content-Length: 99999999999999999\r\n"), "the disk is too full"),
        (answer("", status="302 Found"), "302 Found"),
        *(
            (answer(f"Location: {place}\r\nContent-Length: 0\r\n", status="302 Found"), message)
            for place, message in [
                ("/file", "redirects more than 10 times"),
                ("file:///etc/passwd", "can't be used"),
                ("ftp://127.0.0.1/file", "can't be used"),
                ("http://127.0.0.1:99999/", "can't be used"),
                ("http://[::1", "302 Found"),
            ]
        ),
    ],
)
def test_whatever_a_server_answers_ends_soon_in_one_message(server, path, monkeypatch, script, message):
    monkeypatch.setattr(http, "DEADLINE", 0.1)
    monkeypatch.setattr(http, "LEAST", 1)
    server.scripts["/file"] = script
    with pytest.raises(InterLCMError, match=rf"^{server.url}/file: .*{message}|^{path.parent}: .*{message}"):
        fetch(f"{server.url}/file", path)
    assert not path.exists()


@pytest.mark.parametrize("length", [None, "chunked"])
@pytest.mark.parametrize("body", [DATA[:-1], DATA + b"more"])
def test_a_listed_size_holds_where_the_server_states_none(server, path, monkeypatch, length, body):
    monkeypatch.setattr(fetch_module, "RETRIES", 0)
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    script = answer("Transfer-Encoding: chunked\r\n", chunks) if length else answer("", body)
    server.scripts["/file"] = script
    with pytest.raises(InterLCMError, match=f"more than the {len(DATA)} bytes|ended after {len(body)} of {len(DATA)}"):
        fetch(f"{server.url}/file", path, size=len(DATA))
    assert not path.exists()


@pytest.mark.parametrize("tags", [True, False])
def test_a_server_that_never_comes_to_an_end_is_given_up(server, path, tags):
    """It tells another version at each request, or forgets ranges, and always breaks at the same place."""
    numbers = itertools.count()
    server.scripts["/file"] = lambda send: answer(
        f'Content-Length: {len(DATA)}\r\nETag: "{next(numbers) if tags else 0}"\r\n', DATA[:100]
    )(send)
    with pytest.raises(InterLCMError, match="the download failed 6 times"):
        fetch(f"{server.url}/file", path)


def test_a_server_that_sends_next_to_nothing_each_time_is_given_up(server, path, monkeypatch):
    monkeypatch.setattr(fetch_module, "ATTEMPTS", 8)
    server.cuts["/file"] = [1, *[None, 1] * 100]
    with pytest.raises(InterLCMError, match="the download failed 8 times"):
        fetch(f"{server.url}/file", path)
    monkeypatch.setattr(fetch_module, "LEAST", 2)
    with pytest.raises(InterLCMError, match="the download failed 6 times"):
        fetch(f"{server.url}/file", path)


def over_https(monkeypatch, answers):
    """A client whose requests go nowhere: `answers` returns what a server would, or raises."""
    transport = httpx2.MockTransport(answers)
    monkeypatch.setattr(httpx2, "AsyncClient", functools.partial(httpx2.AsyncClient, transport=transport))


def test_https_stays_https(path, monkeypatch):
    places = {"https://a/file": "https://b/file", "https://b/file": "http://b/plain"}
    over_https(monkeypatch, lambda request: httpx2.Response(302, headers={"Location": places[str(request.url)]}))
    with pytest.raises(InterLCMError, match="https://a/file: redirects to http://b/plain, which isn't https"):
        fetch("https://a/file", path)


def test_a_certificate_that_is_not_trusted_is_told_at_once(path, monkeypatch):
    def distrust(request):
        raise httpx2.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed")

    over_https(monkeypatch, distrust)
    with pytest.raises(InterLCMError, match="https://a/file: the server's certificate isn't trusted"):
        fetch("https://a/file", path)


@pytest.mark.parametrize(
    "url", ["http://", "ftp://a/file", "http://a:b/", "http://\ud800/", "http://" + 70 * "a" + ".b/", "a"]
)
def test_addresses_that_are_none(path, monkeypatch, url):
    monkeypatch.setattr(fetch_module, "RETRIES", 0)
    with pytest.raises(InterLCMError):
        fetch(url, path)


@pytest.mark.parametrize("proxy", ["nothing", "ftp://127.0.0.1:1", "http://127.0.0.1:99999", "socks5://127.0.0.1:1"])
def test_a_proxy_that_is_none(server, path, monkeypatch, proxy):
    monkeypatch.setattr(fetch_module, "RETRIES", 0)
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(InterLCMError, match=f"{server.url}/file: "):
        fetch(f"{server.url}/file", path)


def test_inside_a_running_event_loop(server, path):
    async def notebook():
        fetch(f"{server.url}/file", path)

    asyncio.run(notebook())
    assert path.read_bytes() == DATA


def test_a_folder_that_takes_no_files(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InterLCMError, match=rf"{tmp_path}/file.*can't be written"):
        fetch(f"{server.url}/file", tmp_path / "file" / "weights.pth")
