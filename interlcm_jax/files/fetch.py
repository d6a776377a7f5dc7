"""One file by HTTP, whole or not at all; what an interrupted download left is kept, and the next one goes on there.

The hub's library can't do this: since its version 1.31 it starts a file anew whenever the process before was ended.
"""

import contextlib
import dataclasses
import hashlib
import http.client
import json
import logging
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.atomic import check_space, whole_file

# Called with the label of a file, how many of its bytes are there, and how many it has if that is known.
Progress = Callable[[str, int, int | None], object]

RETRIES = 5  # in a row without a byte between them
FIRST_WAIT = 1.0  # seconds before the first retry; each later one waits twice as long
TIMEOUT = 30.0  # seconds without a byte after which a connection counts as lost
_CHUNK = 2**20
_PASSING = {408, 425, 429}  # HTTP codes, besides 500 and above, with which a server says to come again

_log = logging.getLogger(__name__)


def fetch(
    url: str,
    path: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    label: str | None = None,
    progress: Progress = lambda label, count, total: None,
) -> None:
    """Downloads a file, unless it is there already.

    Bytes are gathered in `PATH.partial`, and `PATH.partial.json` says of which version of the file they are. Where
    they are left behind, only the missing ones are asked for (RFC 9110, range requests); if the file has changed
    meanwhile, or the server doesn't tell its versions apart, all are.

    Args:
        url: http or https.
        path: the file to make; its folder is made too.
        size: the file's size in bytes, if known beforehand.
        sha256: of its contents, if known beforehand.
        label: what to call the file in messages; by default its name.
        progress: see `Progress`.

    Raises:
        InterLCMError: the server has no such file or can't be reached, the connection was lost again and again, the
            disk is full, or the file isn't what it should be; the message names URL and file, and what to do.
    """
    if path.exists() and size in (None, path.stat().st_size):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _Partial(path.with_name(f"{path.name}.partial"))
    download = _Download(url, partial, size, label or path.name, progress)
    download.run()
    if sha256 is not None and partial.sha256() != sha256:
        partial.forget()
        raise InterLCMError(f"{url}: what came isn't what the hub lists (its SHA-256 differs); download it again")
    partial.finish(path)


class _LostError(Exception):
    """This attempt failed, and another one may succeed."""


@dataclasses.dataclass(frozen=True)
class _Version:
    """Which version of a file some bytes are of: its strong ETag, else its date; and its size."""

    validator: str | None
    size: int | None

    @classmethod
    def of(cls, response: http.client.HTTPResponse) -> "_Version":
        tag = response.headers.get("ETag", "")
        validator = tag if tag.startswith('"') else response.headers.get("Last-Modified")
        if response.status == http.client.PARTIAL_CONTENT:
            total = _content_range(response.headers)[1]
        else:
            total = response.headers.get("Content-Length")
        return cls(validator, int(total) if total and total.isdigit() else None)


@dataclasses.dataclass
class _Partial:
    """The bytes of a file that have come so far, and which version of it they are of."""

    path: Path

    @property
    def note(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    def count(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self) -> _Version | None:
        """None where nothing is there to go on with."""
        try:
            return _Version(**json.loads(self.note.read_bytes())) if self.count() else None
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def start(self, version: _Version) -> None:
        """Before the first byte, so that no byte is ever there without its version."""
        self.forget()
        with whole_file(self.note) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(version)))

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def sha256(self) -> str:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def finish(self, path: Path) -> None:
        self.path.touch()  # an empty file has no bytes to make it
        os.replace(self.path, path)
        self.note.unlink(missing_ok=True)


@dataclasses.dataclass(frozen=True)
class _Download:
    url: str
    partial: _Partial
    size: int | None
    label: str
    progress: Progress

    def run(self) -> None:
        """Attempts until the file is there, or until several attempts in a row brought nothing."""
        failures = 0
        while True:
            before = self.partial.count()
            try:
                return self._attempt()
            except _LostError as error:
                failures = 1 if self.partial.count() > before else failures + 1
                if failures > RETRIES:
                    raise InterLCMError(
                        f"{self.url}: the download failed ({error}) after {RETRIES} retries; {self._left()}check the "
                        "connection, then give the same command again"
                    ) from error
                wait = FIRST_WAIT * 2 ** (failures - 1)
                _log.warning("%s: %s; trying again in %g s (%d of %d)", self.label, error, wait, failures, RETRIES)
                time.sleep(wait)

    def _left(self) -> str:
        count = self.partial.count()
        return f"{_readable(count)} of it are kept in {self.partial.path}; " if count else ""

    def _attempt(self) -> None:
        version, count = self.partial.version(), self.partial.count()
        if version and version.size == count:
            return
        # Bytes whose version isn't known can't be told from those of another one.
        resumes = version is not None and version.validator is not None
        headers = {"Range": f"bytes={count}-", "If-Range": version.validator} if resumes else {}
        with self._open(headers) as response:
            offered = _Version.of(response)
            if response.status == http.client.PARTIAL_CONTENT:
                # Not every server heeds If-Range: some send the rest of another version.
                if not resumes or not _continues(version, count, response):
                    self.partial.forget()
                    raise _LostError("the file has changed meanwhile")
            else:
                count = 0
                self.partial.start(offered)
            if self.size not in (None, offered.size or self.size):
                raise InterLCMError(f"{self.url}: {offered.size} bytes instead of {self.size}; try again later")
            check_space(self.partial.path.parent, (offered.size or count) - count)
            self._receive(response, offered.size, count)

    @contextlib.contextmanager
    def _open(self, headers: Mapping[str, str]) -> Iterator[http.client.HTTPResponse]:
        try:
            request = urllib.request.Request(self.url, headers={"User-Agent": "interlcm-jax", **headers})
            response = urllib.request.urlopen(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error.code, error.reason) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise InterLCMError(f"{self.url}: the server's certificate isn't trusted ({reason})") from error
            raise _LostError(f"no connection: {_named(reason)}") from error
        with response:
            yield response

    def _refused(self, code: int, reason: str) -> Exception:
        if code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            self.partial.forget()
            return _LostError("the file has changed meanwhile")
        if code in _PASSING or code >= http.client.INTERNAL_SERVER_ERROR:
            return _LostError(f"the server answers {code} {reason}")
        advice = "it may have been moved or withdrawn" if code in (404, 410) else "the server refuses it"
        return InterLCMError(f"{self.url}: {code} {reason}; {advice}. {self.label} can't be downloaded from there")

    def _receive(self, response: http.client.HTTPResponse, total: int | None, count: int) -> None:
        """Appends the body to the `count` bytes that are there."""
        self.progress(self.label, count, total)
        # Unbuffered, so that what was written before a kill is there after it.
        with self.partial.path.open("ab", buffering=0) as file:
            while chunk := _read(response):
                try:
                    _write_all(file, chunk)
                except OSError as error:
                    raise InterLCMError(
                        f"{self.partial.path}: can't be written ({error.strerror}); what came so far is kept, and the "
                        "same command goes on there"
                    ) from error
                count += len(chunk)
                self.progress(self.label, count, total)
        if total is not None and count < total:
            raise _LostError(f"the connection ended after {count} of {total} bytes")


def _write_all(file: BinaryIO, chunk: bytes) -> None:
    """An unbuffered file may take a part at a time."""
    view = memoryview(chunk)
    while view:
        view = view[file.write(view) :]


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        # As much as has come: the bytes before a connection is lost count too.
        return response.read1(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _LostError(f"the connection was lost: {_named(error)}") from error


def _continues(version: _Version, count: int, response: http.client.HTTPResponse) -> bool:
    """Whether a partial response goes on where the `count` bytes of `version` end; it needn't repeat the validator."""
    offered = _Version.of(response)
    same = offered.validator in (None, version.validator) and offered.size in (None, version.size)
    return same and _content_range(response.headers)[0] == str(count)


def _content_range(headers: Mapping[str, str]) -> tuple[str | None, str | None]:
    """First byte and size of the whole, as a partial response states them."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
    return (match[1], match[2]) if match else (None, None)


def _named(error: object) -> str:
    return f"{type(error).__name__}{f', {error}' if str(error) else ''}" if isinstance(error, Exception) else str(error)


def _readable(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e7 else f"{count} bytes"
