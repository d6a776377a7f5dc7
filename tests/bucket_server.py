"""A bucket on this machine: as much of Google's and Amazon's storage as gcsfs, TensorStore, ArrayRecord and s3fs ask.

Objects live in memory. Requests may be refused, cut off or kept waiting, as a real one's now and then are.
"""

import base64
import contextlib
import dataclasses
import hashlib
import http.server
import itertools
import json
import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, unquote, urlsplit

from tests.bucket_amazon import BUCKET, Amazon

CUT = 0


@dataclasses.dataclass
class Bucket:
    """What the server holds, what it was asked, and its moods.

    Attributes:
        url: of the server.
        objects: contents by name.
        failing: which share of requests fails: by 500, 503, 429, or an answer that is cut off.
        down: all fail.
        forbidden: all are refused, as by missing permission.
        wait: seconds before each answer.
        read: bytes that were sent, by object.
        written: names of objects in the order in which they appeared.
        requests: how many there were, by method.
        watch: called with method and name before a request is answered.
    """

    url: str = ""
    objects: dict[str, bytes] = dataclasses.field(default_factory=dict)
    failing: float = 0.0
    down: bool = False
    forbidden: bool = False
    wait: float = 0.0
    read: Counter = dataclasses.field(default_factory=Counter)
    written: list[str] = dataclasses.field(default_factory=list)
    requests: Counter = dataclasses.field(default_factory=Counter)
    watch: Callable[[str, str], object] = lambda method, name: None
    generations: dict[str, int] = dataclasses.field(default_factory=dict)
    uploads: dict[str, tuple[str, bytearray]] = dataclasses.field(default_factory=dict)
    lock: threading.RLock = dataclasses.field(default_factory=threading.RLock)
    count: Iterator[int] = dataclasses.field(default_factory=lambda: itertools.count(1))
    chance: random.Random = dataclasses.field(default_factory=lambda: random.Random(0))

    def put(self, name: str, data: bytes) -> None:
        """An object appears whole."""
        with self.lock:
            self.objects[name] = bytes(data)
            self.generations[name] = next(self.count)
            self.written.append(name)

    def delete(self, name: str) -> bool:
        with self.lock:
            return self.objects.pop(name, None) is not None

    def names(self, prefix: str = "") -> list[str]:
        with self.lock:
            return sorted(name for name in self.objects if name.startswith(prefix))

    def describe(self, name: str) -> dict:
        """An object as Google's JSON describes it."""
        data, when = self.objects[name], "2026-01-01T00:00:00.000Z"
        return {
            "kind": "storage#object",
            "name": name,
            "bucket": BUCKET,
            "size": str(len(data)),
            "generation": str(self.generations[name]),
            "metageneration": "1",
            "md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode(),
            "etag": f"e{self.generations[name]}",
            "updated": when,
            "timeCreated": when,
            "contentType": "application/octet-stream",
        }

    def listing(self, prefix: str, delimiter: str) -> tuple[list[str], list[str]]:
        """Names right below a prefix, and the folders there."""
        names, folders = [], set()
        for name in self.names(prefix):
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
            else:
                names.append(name)
        return names, sorted(folders)

    def environment(self) -> dict[str, str]:
        """What sends every library here that a program reads buckets with."""
        return {
            "STORAGE_EMULATOR_HOST": self.url,
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "abc",
            "CLOUD_STORAGE_EMULATOR_ENDPOINT": self.url,
            "GOOGLE_CLOUD_PROJECT": "test",
            "NO_GCE_CHECK": "true",
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "abc",
            "AWS_SECRET_ACCESS_KEY": "abc",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 256

    # Clients that leave in the middle are killed ones.
    def handle_error(self, *_):
        pass


@contextlib.contextmanager
def bucket_server() -> Iterator[Bucket]:
    """Runs a server for the block, with one bucket."""
    bucket = Bucket()
    handler = type("Handler", (_Handler,), {"bucket": bucket})
    with _Server(("127.0.0.1", 0), handler) as server:
        bucket.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield bucket
        server.shutdown()
        thread.join()


class _Handler(Amazon, http.server.BaseHTTPRequestHandler):
    bucket: Bucket
    protocol_version = "HTTP/1.1"
    # Else the end of an answer waits for a sign of the other side.
    disable_nagle_algorithm = True

    def handle_request(self):
        bucket, url = self.bucket, urlsplit(self.path)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = self.chunks()
        self.query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        self.cut = False
        time.sleep(bucket.wait)
        bucket.requests[self.command] += 1
        if bucket.down:
            return self.answer(503, b"down")
        if bucket.forbidden:
            return self.fail(403, "no permission")
        if bucket.failing and bucket.chance.random() < bucket.failing:
            code = bucket.chance.choice([500, 503, 429, CUT])
            if code != CUT:
                # Of these Amazon knows one.
                return self.fail(code if "storage/v1" in self.path else 503, "try again")
            self.cut = True
        if match := re.fullmatch(r"(?:/(upload|download))?/storage/v1/b/([^/]+)(?:/o(?:/([^/]*)(/.*)?)?)?", url.path):
            kind, name, key, rest = (unquote(part or "") for part in match.groups())
            bucket.watch(self.command, key or self.query.get("name", ""))
            if name != BUCKET:
                return self.fail(404, "The specified bucket does not exist.")
            return self.google(kind, key, rest, listed="/o" in url.path)
        if url.path.startswith("/session/"):
            return self.resumed(url.path.rpartition("/")[2])
        name, _, key = unquote(url.path[1:]).partition("/")
        bucket.watch(self.command, key)
        return self.amazon(name, key)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = handle_request

    def chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body.split(b"\r\n", 1)[1].rsplit(b"\r\n0;", 1)[0] if b";chunk-signature" in body[:80] else body

    def google(self, kind, key, rest, listed):
        bucket = self.bucket
        match self.command, kind, key, rest:
            case "POST", "upload", "", _:
                return self.upload()
            case "POST", "", _, rest if rest.startswith(("/rewriteTo", "/copyTo", "/moveTo")):
                if key not in bucket.objects:
                    return self.fail(404, "No such object")
                target = rest.partition("/o/")[2]
                bucket.put(target, bucket.objects[key])
                if rest.startswith("/moveTo"):
                    bucket.delete(key)
                return self.json({"done": True, "resource": bucket.describe(target), **bucket.describe(target)})
            case "DELETE", "", key, _ if key:
                return self.answer(204) if bucket.delete(key) else self.fail(404, "No such object")
            case "GET", _, "", _ if listed:
                with bucket.lock:
                    names, folders = bucket.listing(self.query.get("prefix", ""), self.query.get("delimiter", ""))
                    items = [bucket.describe(name) for name in names if name >= self.query.get("startOffset", "")]
                return self.json({"kind": "storage#objects", "items": items, "prefixes": folders})
            case "GET", _, "", _:
                return self.json({"kind": "storage#bucket", "name": BUCKET, "id": BUCKET, "location": "US"})
            case "GET", _, key, _:
                if key not in bucket.objects:
                    return self.fail(404, "No such object")
                if kind == "download" or self.query.get("alt") == "media":
                    return self.send(key)
                return self.json(bucket.describe(key))
        return self.fail(501, "not spoken here")

    def upload(self):
        bucket, kind, name = self.bucket, self.query["uploadType"], self.query.get("name")
        wanted = self.query.get("ifGenerationMatch")
        if kind == "multipart":
            boundary = re.search("boundary=['\"]?([^'\";]+)", self.headers["Content-Type"])[1].encode()
            _, about, data, _ = self.body.split(b"--" + boundary)
            line_end = b"\r\n" if about.startswith(b"\r\n") else b"\n"
            about = json.loads(re.split(rb"\r?\n\r?\n", about, maxsplit=1)[1])
            data = re.split(rb"\r?\n\r?\n", data, maxsplit=1)[1]
            data = data.removesuffix(line_end)
            name = name or about["name"]
        else:
            data = self.body
        if kind == "resumable":
            session = str(next(bucket.count))
            bucket.uploads[session] = (name or json.loads(self.body)["name"], bytearray())
            return self.answer(200, b"", {"Location": f"{bucket.url}/session/{session}"})
        with bucket.lock:
            if wanted is not None and int(wanted) != (bucket.generations[name] if name in bucket.objects else 0):
                return self.fail(412, "At least one of the pre-conditions you specified did not hold.")
            bucket.put(name, data)
            return self.json(bucket.describe(name))

    def resumed(self, session):
        bucket = self.bucket
        if session not in bucket.uploads:
            return self.fail(404, "no such upload")
        name, data = bucket.uploads[session]
        first, _, size = re.fullmatch(r"bytes (\d+|\*)(?:-(\d+))?/(\d+|\*)", self.headers["Content-Range"]).groups()
        if first != "*":
            data[int(first) :] = self.body
        if size != "*" and len(data) >= int(size):
            bucket.put(name, data)
            return self.json(bucket.describe(name))
        return self.answer(308, b"", {"Range": f"bytes=0-{len(data) - 1}"} if data else {})

    def send(self, key):
        """An object, or the part of it that is asked for."""
        with self.bucket.lock:
            data, generation = self.bucket.objects[key], self.bucket.generations[key]
        headers = {
            "ETag": f'"{generation}"',
            "X-Goog-Generation": str(generation),
            "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
            "Accept-Ranges": "bytes",
        }
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            return self.answer(200, data, headers, key)
        first, last = asked[1], asked[2]
        start = int(first) if first else max(0, len(data) - int(last))
        end = min(int(last), len(data) - 1) if first and last else len(data) - 1
        if start >= len(data):
            return self.answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
        return self.answer(206, data[start : end + 1], headers, key)

    def json(self, value):
        return self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def fail(self, code, message):
        return self.answer(code, json.dumps({"error": {"code": code, "message": message}}).encode())

    def answer(self, code, body=b"", headers=None, key=None):
        self.send_response(code)
        # A HEAD's length is the body's that a GET would get.
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.cut:
            self.wfile.write(body[: len(body) // 2])
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        if key is not None:
            self.bucket.read[key] += len(body)
        self.wfile.write(body)

    def log_message(self, *_):
        pass
