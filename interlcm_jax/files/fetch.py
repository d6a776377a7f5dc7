"""One file by HTTP, whole or not at all; what an interrupted download left is kept, and the next one goes on there.

The hub's library can't do this: since its version 1.31 it starts a file anew whenever the process before was ended.
"""

import contextlib
import dataclasses
import glob
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx2

from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.atomic import check_space
from interlcm_jax.files.http import LEAST, LostError, get

# Called with the label of a file, how many of its bytes are there, and how many it has.
Progress = Callable[[str, int, int], object]

RETRIES = 5  # in a row that bring less than `LEAST` bytes
ATTEMPTS = 100  # in all
FIRST_WAIT = 1.0  # seconds before the first retry; each later one in a row waits twice as long
_PASSING = {408, 425, 429}  # HTTP codes, besides 500 and above, with which a server says to come again

_log = logging.getLogger(__name__)


def fetch(
    url: str,
    path: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    headers: Mapping[str, str] | None = None,
    label: str | None = None,
    progress: Progress = lambda label, count, total: None,
) -> None:
    """Downloads a file, unless it is there already.

    Bytes are gathered in `PATH.VERSION.partial`. Where an earlier download left them behind, only the missing ones are
    asked for (RFC 9110, range requests); if the file has changed meanwhile, or the server doesn't tell its versions
    apart, all are.

    Args:
        url: http or https.
        path: the file to make; its folder is made too.
        size: the file's size in bytes, if known beforehand.
        sha256: of its contents, if known beforehand.
        headers: for the request, like a token.
        label: what to call the file in messages; by default its name.
        progress: see `Progress`.

    Raises:
        InterLCMError: the server has no such file or can't be reached, the connection failed again and again, the
            disk is full, or the file isn't what it should be; the message names URL and file, and what to do.
    """
    try:
        if path.exists() and size in (None, path.stat().st_size):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = _Download(url, path, size, headers or {}, label or path.name, progress).run()
        if sha256 is not None and _sha256(partial) != sha256:
            partial.unlink()
            raise InterLCMError(f"{url}: what came isn't the published file (its SHA-256 differs); download it again")
        os.replace(partial, path)
    except OSError as error:
        raise InterLCMError(
            f"{error.filename or path}: can't be written ({error.strerror}); what came so far is kept, and the same "
            "command goes on there"
        ) from error


@dataclasses.dataclass
class _Download:
    url: str
    path: Path
    size: int | None
    headers: Mapping[str, str]
    label: str
    progress: Progress
    partial: Path | None = None  # where the bytes are gathered, once the server said of which version they are
    furthest: int = 0  # how many bytes were there at best: a file that always begins anew makes no progress

    def run(self) -> Path:
        """Attempts until all bytes are there, or until several attempts in a row brought next to nothing."""
        failures = attempts = 0
        while True:
            attempts, before = attempts + 1, self.furthest
            try:
                return self._attempt()
            except LostError as error:
                failures = 1 if self.furthest >= before + LEAST else failures + 1
                if failures > RETRIES or attempts == ATTEMPTS:
                    raise InterLCMError(
                        f"{self.url}: the download failed {attempts} times, the last time because {error}; check the "
                        "connection, then give the same command again: it goes on with what came"
                    ) from error
                wait = FIRST_WAIT * 2 ** (failures - 1)
                _log.warning("%s: %s; trying again in %g s (%d of %d)", self.label, error, wait, failures, RETRIES)
                time.sleep(wait)

    def _attempt(self) -> Path:
        with self._open({}) as (response, body):
            validator, size = _validator(response), self._size(response)
            self.partial = self._only_partial(validator, size)
            count = self.partial.stat().st_size if self.partial.exists() else 0
            if not count:
                self._receive(body, 0, size)
                return self.partial
        if count < size:
            with self._open({"Range": f"bytes={count}-", "If-Range": validator}) as (response, body):
                # Not every server knows ranges or heeds If-Range: some send the rest of another version.
                rest = response.headers.get("Content-Range") == f"bytes {count}-{size - 1}/{size}"
                if response.status_code != 206 or not rest or _validator(response) not in (None, validator):
                    self.partial.unlink()
                    raise LostError("the file has changed meanwhile, or the server sends no parts of it")
                self._receive(body, count, size)
        return self.partial

    @contextlib.contextmanager
    def _open(self, ranged: Mapping[str, str]) -> Iterator[tuple[httpx2.Response, Iterator[bytes]]]:
        with get(self.url, {**self.headers, **ranged}) as (response, body):
            code = response.status_code
            answer = f"{code} {response.reason_phrase}"
            if code in _PASSING or code >= 500:
                raise LostError(f"the server answers {answer}")
            if code != 200 and not (ranged and code in (206, 416)):
                advice = "it may have been moved or withdrawn" if code in (404, 410) else "the server refuses it"
                raise InterLCMError(f"{self.url}: {answer}; {advice}. {self.label} can't be downloaded from there")
            yield response, body

    def _size(self, response: httpx2.Response) -> int:
        stated = response.headers.get("Content-Length")
        size = int(stated) if stated else self.size
        if size is None:
            raise InterLCMError(f"{self.url}: the server doesn't say how long it is; is it a web page?")
        if self.size not in (None, size):
            raise InterLCMError(f"{self.url}: {size} bytes instead of {self.size}; try again later")
        return size

    def _only_partial(self, validator: str | None, size: int) -> Path:
        """Where the bytes of this version are gathered; other versions' and what can't be gone on with is deleted."""
        version = hashlib.sha256(f"{validator} {size}".encode()).hexdigest()[:16]
        partial = self.path.with_name(f"{self.path.name}.{version}.partial")
        for path in self.path.parent.glob(f"{glob.escape(self.path.name)}.{'?' * 16}.partial"):
            if path != partial or not validator or path.stat().st_size > size:
                path.unlink()
        return partial

    def _receive(self, body: Iterator[bytes], count: int, size: int) -> None:
        """Appends the body to the `count` bytes that are there."""
        check_space(self.path.parent, size - count)
        self.progress(self.label, count, size)
        # Unbuffered, so that what was written before a kill is there after it.
        with self.partial.open("ab", buffering=0) as file:
            for data in body:
                if count + len(data) > size:
                    raise InterLCMError(f"{self.url}: more than the {size} bytes that it should have; try again later")
                while data:
                    data = data[file.write(data) :]  # it may take a part at a time
                count = file.tell()
                self.furthest = max(self.furthest, count)
                self.progress(self.label, count, size)
        if count < size:
            raise LostError(f"the connection ended after {count} of {size} bytes")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _validator(response: httpx2.Response) -> str | None:
    """What tells the versions of a file apart: a strong ETag, else a date."""
    tag = response.headers.get("ETag", "")
    validator = tag if tag.startswith('"') else response.headers.get("Last-Modified")
    return validator if validator and validator.isascii() else None
