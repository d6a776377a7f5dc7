"""TensorBoard's event files, by tensorboardX."""

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from interlcm_jax.errors import InterLCMError

# Bytes of an event file before the next one is begun: in a bucket a file that grew is copied anew.
MAX_BYTES = 8 * 2**20
# Seconds between looks that TensorBoard may have at what is new.
_FLUSH_EVERY = 10.0


class Board:
    """Event files in a folder. Whatever was written before a `flush` is there after `kill -9`.

    tensorboardX's own `SummaryWriter` hands events to a thread, which a kill ends with what it has.

    Args:
        folder: of the event files, on this machine.
        start_step: steps done before; what TensorBoard has of later ones it hides.

    Raises:
        InterLCMError: tensorboardX isn't installed.
    """

    def __init__(self, folder: Path, start_step: int):
        _tensorboardx()
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._files, self._open = folder, 0, event_file_writer.EventsWriter
        self._event, self._summary = Event, summary
        self._begin()
        self._add(Event(step=start_step + 1, session_log=SessionLog(status=SessionLog.START)))

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        """Adds a point to the curve of each name that has a value."""
        for name, value in values.items():
            if value is not None:
                self._add(self._event(step=step, summary=self._summary.scalar(name, value)))
        if time.monotonic() > self._flushed + _FLUSH_EVERY:
            self.flush()

    def image(self, step: int, name: str, pixels: Any) -> None:
        """Adds a picture, uint8 (H, W, 3)."""
        self._add(self._event(step=step, summary=self._summary.image(name, pixels, dataformats="HWC")))
        self.flush()

    def flush(self) -> None:
        """Writes what waits."""
        self._writer.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Writes what waits, and ends the file."""
        self._writer.close()

    def _begin(self) -> None:
        # TensorBoard reads files in the order of their names, which begin with the time; two may begin in one second.
        self._writer = self._open(str(self._folder / "events"), f".{os.getpid()}.{self._files:04}")
        self._files, self._bytes, self._flushed = self._files + 1, 0, time.monotonic()

    def _add(self, event: Any) -> None:
        if self._bytes > MAX_BYTES:
            self._writer.close()
            self._begin()
        event.wall_time = time.time()
        self._writer.write_event(event)
        self._bytes += event.ByteSize()


def _tensorboardx() -> ModuleType:
    """tensorboardX without PyTorch.

    It imports PyTorch wherever that is installed, though only other calls than ours need it: seconds, and CUDA
    libraries beside those that JAX has loaded. A None among the modules stands for one that isn't there.
    """
    hide = "torch" not in sys.modules
    if hide:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        import tensorboardX
    except ImportError as error:
        raise InterLCMError(
            f"training needs tensorboardX ({error}): pip install 'interlcm-jax[train]', or tensorboardX alone"
        ) from error
    finally:
        if hide:
            del sys.modules["torch"]
    return tensorboardX
