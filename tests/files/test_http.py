"""What a server may answer, and never ends: each download ends soon, in one message."""

import asyncio
import functools
import itertools
import time

import httpx2
import pytest

from interlcm_jax.errors import InterLCMError
from interlcm_jax.files import fetch as fetch_module
from interlcm_jax.files import http
from interlcm_jax.files.fetch import fetch
from tests.file_server import DATA


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
