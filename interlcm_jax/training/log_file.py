"""A run's numbers as JSON lines: one file, or in a bucket, where nothing can be appended, pieces of bounded size."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.atomic import whole_file

# Bytes of a piece before the next one is begun.
MAX_BYTES = 2**20


class LogFile:
    """A file of one JSON object a line, each with its "step"; whatever ends the process, it holds whole lines alone.

    Each line replaces the file by a longer one: of an append, `kill -9` may leave the part up to a page's end.

    Args:
        path: of the file, on this machine. One that is there is gone on with.
        start_step: steps done before. Lines of later steps go: those are run again. At 0 the file starts anew.

    Attributes:
        earlier: the line with the run's time that is nearest to the start: the last that stays, or the first that goes;
            None where there is none.

    Raises:
        InterLCMError: the file can't be read or written.
    """

    def __init__(self, path: Path, start_step: int):
        self.path = path
        try:
            content = path.read_bytes() if path.exists() else b""
            for left in path.parent.glob(f".{path.name}.*.partial"):
                left.unlink()
        except OSError as error:
            raise _failed(self.path, error) from error
        self._content, self.earlier = _split(content, start_step)
        self._replace()

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Adds a line; numbers that aren't finite become null, as JSON has none.

        Raises:
            InterLCMError: the line can't be written; the file is as it was.
        """
        self._content += _line(step, values)
        self._replace()

    def _replace(self) -> None:
        try:
            with whole_file(self.path) as temporary:
                temporary.write_bytes(self._content)
        except OSError as error:
            raise _failed(self.path, error) from error


class LogPieces:
    """The same as files `log-00001.jsonl` and so on, one after the other; each start of the run begins a new one.

    Args:
        local: the folder where pieces are written, on this machine; a `Mirror` copies them to `remote`.
        remote: the run's folder, an `etils.epath.Path`, with the pieces of earlier starts.
        start_step: as for `LogFile`: lines of later steps go from the pieces that are there.

    Raises:
        InterLCMError: pieces can't be read or written.
    """

    def __init__(self, local: Path, remote: Any, start_step: int):
        self._local, self.earlier, number = local, None, 0
        try:
            for path in sorted(remote.glob("log-*.jsonl")):
                number = int(path.stem.removeprefix("log-"))
                content = path.read_bytes()
                kept, earlier = _split(content, start_step)
                if self.earlier is None or (earlier and earlier["step"] <= start_step):
                    self.earlier = earlier or self.earlier
                if not kept:
                    path.unlink()
                elif kept != content:
                    path.write_bytes(kept)
        except Exception as error:
            raise _failed(remote, error) from error
        self._begin(number + 1)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """As `LogFile.write`."""
        if self._bytes > MAX_BYTES:
            self._begin(self._number + 1)
        self._piece.write(step, values)
        self._bytes += len(_line(step, values))

    def _begin(self, number: int) -> None:
        self._number, self._bytes = number, 0
        self._piece = LogFile(self._local / f"log-{number:05}.jsonl", 0)


def _failed(path: Any, error: Exception) -> InterLCMError:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return InterLCMError(f"{path}: the log can't be written ({reason})")


def _line(step: int, values: Mapping[str, Any]) -> bytes:
    finite = {name: None if _is_odd(value) else value for name, value in values.items()}
    return json.dumps({"step": step, **finite}, allow_nan=False).encode() + b"\n"


def _is_odd(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _split(content: bytes, last_step: int) -> tuple[bytes, dict[str, Any] | None]:
    """The lines that are JSON objects of steps up to the last (none of 0), and the line nearest to it with a time."""
    kept, timed, after = [], None, None
    for line in content.splitlines(keepends=True):
        try:
            values = json.loads(line)
            stays = values["step"] <= last_step and last_step > 0
        except (ValueError, TypeError, KeyError):
            continue
        if not line.endswith(b"\n"):
            continue
        if stays:
            kept.append(line)
        if "seconds/run" in values:
            timed = values if stays else timed
            after = after if stays else after or values
    return b"".join(kept), timed or after
