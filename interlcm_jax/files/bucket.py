"""Paths in buckets, gs:// and s3://, with the methods of `pathlib.Path` that make sense there.

etils' epath has the paths, as Orbax and TensorFlow Datasets use them; gcsfs and s3fs the requests. A bucket has objects
and no folders: an object appears whole, under its whole name, or not at all.
"""

import asyncio
import errno
import functools
import inspect
import io
import logging
import os
import random
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

# gs:// goes the same way with TensorFlow and without.
os.environ.setdefault("EPATH_USE_TF", "0")

import fsspec
import gcsfs
import gcsfs.retry
import s3fs  # noqa: F401 (its absence is told at once, and not by the first request)
from etils import epath
from google.auth.exceptions import GoogleAuthError

from interlcm_jax.files.bucket_errors import BucketError, brief, explained, patience

# A login that is wrong stays wrong; one that the machine's own server is asked for may be late.
_LOGIN_PATIENCE = 10.0
# Between tries, seconds.
FIRST_WAIT, _LONGEST_WAIT = 0.5, 20.0
# Bytes of each request for a large object.
CHUNK = 2**23

_log = logging.getLogger(__name__)


class PatientGCS(gcsfs.core.GCSFileSystem):
    """gcsfs, whose six tries are over after half a minute, with more patience; for Orbax' and JAX's requests too."""

    async def _request(self, *args: Any, **kwargs: Any) -> Any:
        began, wait, told = time.monotonic(), FIRST_WAIT, False
        while True:
            try:
                return await _once(self, *args, **kwargs)
            except Exception as error:
                most = _LOGIN_PATIENCE if isinstance(error, GoogleAuthError) else patience()
                passing = gcsfs.retry.is_retriable(error) or isinstance(error, TimeoutError | ConnectionError)
                if not passing or time.monotonic() + wait > began + most:
                    raise
                if not told and time.monotonic() > began + 10:
                    _log.warning("the bucket doesn't answer (%s); trying again for %.0f s", brief(error), most)
                    told = True
            await asyncio.sleep(wait * random.uniform(0.5, 1))
            wait = min(2 * wait, _LONGEST_WAIT)


_once = inspect.unwrap(gcsfs.core.GCSFileSystem._request)
for _name in ("gs", "gcs"):
    fsspec.register_implementation(_name, PatientGCS, clobber=True)
# Others write there too: what was listed before says nothing.
for _name in ("gs", "gcs", "s3"):
    fsspec.config.conf.setdefault(_name, {}).setdefault("use_listings_cache", False)
_attempts = {"mode": "standard", "max_attempts": max(2, int(patience() / _LONGEST_WAIT) + 5)}
fsspec.config.conf["s3"].setdefault("config_kwargs", {}).setdefault("retries", _attempts)

_Address = type(epath.Path("gs://bucket"))


class BucketPath(_Address, Path):
    """An address in a bucket. Reading is by ranges, writing by whole objects.

    Raises:
        BucketError: from every method: there is no such thing, no permission, no login, no answer.
    """

    # Of this machine alone: pathlib's own would look here.
    expanduser = absolute = lambda self: self

    def resolve(self, strict: bool = False) -> "BucketPath":
        """The address itself."""
        return self

    def is_symlink(self) -> bool:
        """No object is."""
        return False

    @property
    def key(self) -> str:
        """Bucket and name, as fsspec wants them."""
        return "/".join(self.parts[2:])

    @property
    def requests(self) -> fsspec.AbstractFileSystem:
        """What makes requests of this kind of bucket."""
        with explained(self):
            return fsspec.filesystem(self.parts[1])

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Kind, size and time of the last change."""
        with explained(self):
            info = self.requests.info(self.key)
        changed = info.get("mtime") or info.get("LastModified")
        kind = stat.S_IFREG if info["type"] == "file" else stat.S_IFDIR
        seconds = changed.timestamp() if hasattr(changed, "timestamp") else 0
        return os.stat_result((kind, 0, 0, 0, 0, 0, info["size"] or 0, 0, seconds, 0))

    def exists(self) -> bool:
        """Whether there is an object of this name, or there are any below."""
        return self._kind() is not None

    def is_file(self) -> bool:
        """Whether there is an object of this name."""
        return self._kind() == stat.S_IFREG

    def is_dir(self) -> bool:
        """Whether there are objects below."""
        return self._kind() == stat.S_IFDIR

    def _kind(self) -> int | None:
        try:
            return stat.S_IFMT(self.stat().st_mode)
        except FileNotFoundError:
            return None

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: there are no folders to make."""

    def open(self, mode: str = "r", **options: Any) -> IO:
        """Opens an object to be read.

        Raises:
            io.UnsupportedOperation: to write, see `write_bytes` and `upload`.
        """
        if set(mode) - set("rbt"):
            raise io.UnsupportedOperation(f"{self}: objects are written whole")
        size = self.stat().st_size
        binary = io.BufferedReader(_Object(self, size), min(max(size, 1), CHUNK))
        return binary if "b" in mode else io.TextIOWrapper(binary, **{"encoding": "utf-8", **options})

    def read_range(self, start: int, end: int) -> bytes:
        """Bytes from `start` to before `end`, by one request."""
        if start == end:
            return b""
        with explained(self):
            found = self.requests.cat_file(self.key, start=start, end=end)
        if len(found) != end - start:
            raise BucketError(errno.EIO, f"{len(found)} bytes came instead of {end - start}", str(self))
        return found

    def read_bytes(self) -> bytes:
        """All of an object."""
        with explained(self):
            return self.requests.cat_file(self.key)

    def write_bytes(self, data: Any) -> int:
        """Makes an object; it appears whole, or not at all."""
        with explained(self, writing=True):
            self.requests.pipe_file(self.key, bytes(data))
        return len(data)

    def write_text(self, data: str, *args: Any, **kwargs: Any) -> int:
        """Makes an object of UTF-8."""
        return self.write_bytes(data.encode())

    def touch(self, mode: int = 0o666, exist_ok: bool = True) -> None:
        """Makes an empty object."""
        self.write_bytes(b"")

    def upload(self, file: Path) -> None:
        """Makes an object of a file's contents; it appears whole, or not at all."""
        with explained(self, writing=True):
            self.requests.put_file(str(file), self.key)

    def download(self, file: Path) -> None:
        """Writes an object's contents into a file."""
        with file.open("wb") as out, self.open("rb") as source:
            while data := source.read(CHUNK):
                out.write(data)

    def rename(self, target: Path) -> "BucketPath":
        """Moves an object, or all objects of a folder, one by one."""
        target = BucketPath(target)
        with explained(self):
            for path in self.files():
                self.requests.mv(path.key, target.joinpath(*path.parts[len(self.parts) :]).key)
        return target

    def files(self) -> dict["BucketPath", int]:
        """All objects below, in order of their names, with their sizes in bytes; by one listing."""
        with explained(self):
            found = self.requests.find(self.key, withdirs=False, detail=True)
        # What looks like a folder of its own is an empty object that some programs leave.
        names = sorted(name for name in found if not name.endswith("/"))
        return {BucketPath(f"{self.parts[1]}://{name}"): found[name]["size"] for name in names}

    def rglob(self, pattern: str, **options: Any) -> Iterator["BucketPath"]:
        """Objects below whose last name matches."""
        return (path for path in self.files() if path.match(pattern))


class _Object(io.RawIOBase):
    """An object as a file that is read."""

    def __init__(self, path: BucketPath, size: int):
        self.name, self._path, self._size, self._at = str(path), path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._size - self._at))
        buffer[:count] = self._path.read_range(self._at, self._at + count)
        self._at += count
        return count


def _method(name: str) -> Any:
    """epath's method of this name, whose errors say what is wrong."""
    inner = getattr(_Address, name)

    @functools.wraps(inner)
    def method(self: BucketPath, *args: Any, **kwargs: Any) -> Any:
        with explained(self):
            found = inner(self, *args, **kwargs)
            return iter(list(found)) if inspect.isgenerator(found) else found

    return method


for _name in ("iterdir", "glob", "rmdir", "rmtree", "unlink"):
    setattr(BucketPath, _name, _method(_name))
