"""A server of made files on this machine, that can lose connections, change files and have its moods."""

import contextlib
import dataclasses
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping

DATA = bytes(range(256)) * 40


@dataclasses.dataclass
class Served:
    """What a server answers, and what it was asked.

    Attributes:
        url: of the server.
        files: contents by path; a redirect is a string.
        cuts: how many bytes of a path are sent before the connection ends, in the requests to come (None: all).
        changes: the contents of a path after each of the requests to come.
        codes: what is answered in place of a file, in the requests to come.
        headers: others for every file; one that is None is left out.
        scripts: for a path, what sends the bytes of an answer in place of the server, given how to send some.
        takes_ranges: whether the server can send parts.
        heeds_if_range: whether it looks at If-Range.
        tokens: the Authorization of each request.
        log: path, first byte asked for (0 where there is no Range) and If-Range of each request.
    """

    url: str = ""
    files: dict[str, bytes | str] = dataclasses.field(default_factory=dict)
    cuts: dict[str, list[int | None]] = dataclasses.field(default_factory=dict)
    changes: dict[str, list[bytes]] = dataclasses.field(default_factory=dict)
    codes: list[int] = dataclasses.field(default_factory=list)
    headers: dict[str, str | None] = dataclasses.field(default_factory=dict)
    scripts: dict[str, Callable[[Callable[[bytes], object]], object]] = dataclasses.field(default_factory=dict)
    takes_ranges: bool = True
    heeds_if_range: bool = True
    tokens: list[str | None] = dataclasses.field(default_factory=list)
    log: list[tuple[str, int, str | None]] = dataclasses.field(default_factory=list)

    def asked(self, path: str) -> list[int]:
        """From which byte on a file was asked for, request by request."""
        return [first for name, first, _ in self.log if name == path]

    def add_repository(self, name: str, files: Mapping[str, bytes], license: str = "mit") -> None:
        """A repository as the Hugging Face hub serves it: a listing, and files that it redirects to."""
        commit = hashlib.sha1(name.encode()).hexdigest()
        siblings = []
        for file, data in files.items():
            large = {"lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 1}}
            siblings.append({"rfilename": file, "size": len(data), **(large if len(data) > 10_000 else {})})
            for version in (commit, "main"):
                self.files[f"/{name}/resolve/{version}/{file}"] = f"/cdn/{name}/{file}"
            self.files[f"/cdn/{name}/{file}"] = data
        info = {"id": name, "sha": commit, "siblings": siblings, "cardData": {"license": license}, "tags": []}
        self.files[f"/api/models/{name}"] = json.dumps(info).encode()


@contextlib.contextmanager
def file_server() -> Iterator[Served]:
    """Runs a server for the block."""
    served = Served()
    handler = type("Handler", (_Handler,), {"served": served})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        served.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield served
        server.shutdown()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    served: Served

    def do_GET(self):
        path, served = self.path.partition("?")[0], self.served
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(asked[1]) if asked else 0
        served.tokens.append(self.headers.get("Authorization"))
        served.log.append((path, first, self.headers.get("If-Range")))
        if path in served.scripts:
            with contextlib.suppress(OSError):  # the client may have left
                served.scripts[path](self.wfile.write)
            self.close_connection = True
            return None
        data = served.files.get(path)
        if data is None or served.codes:
            return self.answer(served.codes.pop(0) if data is not None else 404, served.headers)
        if served.changes.get(path):
            served.files[path] = served.changes[path].pop(0)
        if isinstance(data, str):
            return self.answer(302, {"Location": data})
        tag = f'"{hashlib.sha256(data).hexdigest()}"'
        valid = self.headers.get("If-Range") in (None, tag, served.headers.get("Last-Modified"))
        part = bool(asked) and served.takes_ranges and (valid or not served.heeds_if_range)
        if part and first >= len(data):
            return self.answer(416, {"Content-Range": f"bytes */{len(data)}"})
        first = first if part else 0
        headers = {"Content-Length": str(len(data) - first), "ETag": tag}
        if part:
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        cut = served.cuts[path].pop(0) if served.cuts.get(path) else None
        return self.answer(206 if part else 200, {**headers, **served.headers}, data[first:][:cut])

    do_HEAD = do_GET

    def answer(self, code, headers, body=b""):
        self.send_response(code)
        for name, value in {"Content-Length": "0", **headers}.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            with contextlib.suppress(OSError):
                self.wfile.write(body)

    def log_message(self, *_):
        pass
