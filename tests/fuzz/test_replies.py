"""Random HTTP replies: each download ends soon, with the right file or with a message of ours."""

import contextlib
import hashlib
import json
import random
import threading
import time

import pytest
from huggingface_hub import constants

from interlcm_jax.errors import InterLCMError
from interlcm_jax.files import fetch as fetch_module
from interlcm_jax.files import http
from interlcm_jax.files.fetch import fetch
from interlcm_jax.files.repository import list_repository
from tests.file_server import file_server

pytestmark = pytest.mark.long

DATA = bytes(range(256)) * 20
HALF = len(DATA) // 2
LISTING = json.dumps(
    {
        "sha": "0" * 40,
        "siblings": [
            {"rfilename": "config.json", "size": 2},
            {"rfilename": "a.safetensors", "size": 9, "lfs": {"sha256": "0" * 64}},
        ],
        "cardData": {"license": "mit"},
    }
).encode()
STATUSES = (
    *["HTTP/1.1 200 OK", "HTTP/1.1 206 Partial Content"] * 8,
    "HTTP/1.1 204 No Content",
    "HTTP/1.1 302 Found",
    "HTTP/1.1 401 Unauthorized",
    "HTTP/1.1 404 \x1b[31m",
    "HTTP/1.1 416 Range Not Satisfiable",
    "HTTP/1.1 503 Service Unavailable",
    "HTTP/1.1 999 ?",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK",
    "HTTP/9.9 200 OK",
    "HTTP/1.1 -1",
    "ICY 200 OK",
    "",
)
HEADERS = {
    "Content-Length": (
        len(DATA),
        len(DATA) - 1,
        len(DATA) + 1,
        HALF,
        0,
        -1,
        "1e3",
        "1_000",
        "5, 6",
        "9" * 30,
        "\u0663",
    ),
    "Content-Range": (
        f"bytes 0-{len(DATA) - 1}/{len(DATA)}",
        f"bytes {HALF}-{len(DATA) - 1}/{len(DATA)}",
        f"bytes {HALF}-{len(DATA) - 1}/*",
        "bytes 9-1/2",
        "items 1",
    ),
    "ETag": ('"a"', '"b"', 'W/"a"', '"\xe9"', '"', "a" * 9000),
    "Last-Modified": ("Wed, 21 Oct 2015 07:28:00 GMT", "yesterday", "\xff"),
    "Transfer-Encoding": ("chunked", "gzip, chunked", "identity", "?"),
    "Content-Encoding": ("gzip", "br", "identity", ""),
    "Location": (
        "/file",
        "/other",
        "//",
        "file:///etc/passwd",
        "http://[",
        "http://a:b",
        "\x00",
        "http://127.0.0.1:1/",
    ),
    "Set-Cookie": ("a=b; Domain=;", "=" * 99),
    "X-Error-Code": ("GatedRepo", "\x07", "Other"),
    "X Y": ("",),
    "": ("",),
}
BODIES = (
    lambda data: data,
    lambda data: data[:HALF],
    lambda data: data[HALF:],
    lambda data: data + b"more",
    lambda data: b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data),
    lambda data: b"%x\r\n%s\r\n" % (len(data) + 9, data),
    lambda data: b"%x;%s\r\n%s\r\n0\r\nX: y\r\n\r\n" % (len(data), b"e" * 9000, data),
    lambda data: b"zz\r\n" + data,
    lambda data: b"",
)


def reply(random, data):
    """The bytes of a reply, near to a right one or right."""
    headers = {"Content-Length": len(data), "ETag": '"a"'}
    if random.random() < 0.3:
        return f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data
    for name in random.sample(sorted(HEADERS), random.choice([0, 0, 1, 1, 2, 3])):
        headers[name] = random.choice(HEADERS[name])
    if random.random() < 0.2:
        headers.pop("Content-Length")
    lines = [random.choice(STATUSES), *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    raw = bytearray("\r\n".join(lines).encode("latin-1", "replace") + random.choice(BODIES)(data))
    for _ in range(random.choice([0, 0, 0, 1, 3])):
        raw[random.randrange(min(200, len(raw)))] = random.randrange(256)
    return bytes(raw)


def script(random, data):
    """Sends a reply at once, in two halves, slowly, in part, or never."""
    pace = random.choice([1, 1, 1, 1, 2, 50, "part", "hold"])
    raw = reply(random, data)

    def send_it(send):
        if pace == "hold":
            time.sleep(0.3)
        elif pace == "part":
            send(raw[: len(raw) // 2])
        else:
            step = -(-len(raw) // pace)
            for start in range(0, len(raw), step):
                send(raw[start : start + step])
                time.sleep(0.01 if pace > 1 else 0)

    return send_it


@pytest.fixture
def server(monkeypatch):
    """A hub that nobody waits for."""
    for name, value in {"FIRST_WAIT": 0.0, "ATTEMPTS": 4, "LEAST": 1}.items():
        monkeypatch.setattr(fetch_module, name, value)
    monkeypatch.setattr(http, "DEADLINE", 0.1)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    threads = threading.active_count()
    with file_server() as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        yield served
        time.sleep(0.5)
        assert threading.active_count() <= threads + 3


def attempt(*arguments, **options):
    try:
        fetch(*arguments, **options)
    except InterLCMError as error:
        return str(error)


@pytest.mark.parametrize("seed", range(2))
def test_a_download_gives_the_right_file_or_a_message(server, tmp_path, seed):
    digest, whole, messages = hashlib.sha256(DATA).hexdigest(), 0, set()
    for number in range(50):
        chance = random.Random(1000 * seed + number)
        path = tmp_path / str(number)
        if chance.random() < 0.3:
            # What another program left under our names.
            version = hashlib.sha256(f'"a" {len(DATA)}'.encode()).hexdigest()[:16]
            left = chance.choice([b"", DATA[:HALF], DATA[::-1], DATA * 2])
            path.with_name(f"{number}.{version}.partial").write_bytes(left)
        server.files["/file"] = DATA
        replies = [script(chance, DATA) for _ in range(3)]
        server.scripts["/file"] = lambda send, chance=chance, replies=replies: chance.choice(replies)(send)
        size = chance.choice([len(DATA), None])
        started = time.monotonic()
        message = attempt(f"{server.url}/file", path, size=size, sha256=digest)
        assert time.monotonic() - started < 5, number
        if message is None:
            assert path.read_bytes() == DATA
            whole += 1
        else:
            assert message.isprintable()
            messages.add(message.partition(": ")[2][:20])
            assert not path.exists()
    assert whole
    assert len(messages) > 4


@pytest.mark.parametrize("seed", range(2))
def test_a_listing_is_one_or_gives_a_message(server, seed):
    whole = 0
    for number in range(60):
        chance = random.Random(1000 * seed + number)
        text = bytearray(LISTING)
        for _ in range(chance.choice([0, 1, 3])):
            place = chance.randrange(len(text))
            text[place : place + chance.randrange(9)] = chance.choice(
                [b"7", b"null", b"[]", b'"', b"\\u0007", b"{", b"../"]
            )
        server.scripts["/api/models/owner/name"] = script(chance, bytes(text))
        with contextlib.suppress(InterLCMError):
            repository = list_repository("owner/name")
            assert all(".." not in name and name.isprintable() for name in repository.files)
            whole += 1
    assert whole
