"""From this machine's disk to a bucket: what a run writes there while it goes on."""

import sys
import threading
import time
from pathlib import Path
from typing import Any

from interlcm_jax.errors import InterLCMError

# Seconds between copies, and those for which the last one is tried.
EVERY, PATIENCE = 30.0, 60.0


class Mirror:
    """Copies each file of a folder that has changed into another one, every 30 s and when asked.

    A bucket can't append, and shows an object once it is whole: files are copied as a whole, in the order of their
    names, so that of two event files TensorBoard sees the older one first. A copy that fails is made up for later.

    Args:
        local: on this machine.
        remote: the folder it is copied to, an `etils.epath.Path`.
    """

    def __init__(self, local: Path, remote: Any, every: float = EVERY):
        self._local, self._remote, self._every = local, remote, every
        self._copied: dict[Path, tuple[int, int]] = {}
        self._lock, self._ended, self._failing = threading.Lock(), threading.Event(), False
        threading.Thread(target=self._go_on, daemon=True).start()

    def copy(self) -> Exception | None:
        """Copies what has changed; returns what went wrong, which is told once."""
        with self._lock:
            try:
                self._copy()
            # Of as many kinds as there are buckets.
            except Exception as error:
                if not self._failing:
                    print(f"{self._remote}: can't be written ({_line(error)}); tried again", file=sys.stderr)
                self._failing = True
                return error
            self._failing = False
            return None

    def close(self, patience: float) -> None:
        """Copies what is left.

        Args:
            patience: seconds for which it is tried.

        Raises:
            InterLCMError: it can't be copied.
        """
        self._ended.set()
        until = time.monotonic() + patience
        while error := self.copy():
            if time.monotonic() > until:
                raise InterLCMError(
                    f"{self._remote}: the log can't be written ({_line(error)}); it is whole in {self._local}"
                ) from error
            time.sleep(min(5.0, self._every))

    def _go_on(self) -> None:
        while not self._ended.wait(self._every):
            self.copy()

    def _copy(self) -> None:
        for path in sorted(self._local.rglob("*")):
            # Hidden ones are being written.
            if path.name.startswith(".") or not path.is_file():
                continue
            stat = path.stat()
            state = (stat.st_mtime_ns, stat.st_size)
            if self._copied.get(path) != state:
                target = self._remote / path.relative_to(self._local).as_posix()
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
                self._copied[path] = state


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
