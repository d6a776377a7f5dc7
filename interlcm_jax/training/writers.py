"""Where a run's numbers go: a file of JSON lines, a progress line on the terminal, TensorBoard's files."""

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

from tqdm import tqdm

from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.atomic import whole_file


class LogFile:
    """A file of one JSON object a line, each with its "step"; whatever ends the process, it holds whole lines alone.

    Each line replaces the file by a longer one: of an append, `kill -9` may leave the part up to a page's end.

    Args:
        path: of the file. One that is there is gone on with.
        start_step: steps done before. Lines of later steps go: those are run again. At 0 the file starts anew.

    Raises:
        InterLCMError: the file can't be read or written.
    """

    def __init__(self, path: Path, start_step: int):
        self.path = path
        try:
            self._content = _whole_lines(path.read_bytes(), start_step) if start_step and path.exists() else b""
            for left in path.parent.glob(f".{path.name}.*.partial"):
                left.unlink()
        except OSError as error:
            raise self._failed(error) from error
        self._replace()

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Adds a line; numbers that aren't finite become null, as JSON has none.

        Raises:
            InterLCMError: the line can't be written; the file is as it was.
        """
        finite = {name: None if _is_odd(value) else value for name, value in values.items()}
        self._content += json.dumps({"step": step, **finite}, allow_nan=False).encode() + b"\n"
        self._replace()

    def _replace(self) -> None:
        try:
            with whole_file(self.path) as temporary:
                temporary.write_bytes(self._content)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> InterLCMError:
        return InterLCMError(f"{self.path}: the log can't be written ({error.strerror})")


def _is_odd(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _whole_lines(content: bytes, last_step: int) -> bytes:
    """The lines that are JSON objects of steps up to the last."""
    kept = []
    for line in content.splitlines(keepends=True):
        try:
            step = json.loads(line)["step"]
            if line.endswith(b"\n") and step <= last_step:
                kept.append(line)
        except (ValueError, TypeError, KeyError):
            continue
    return b"".join(kept)


class Progress:
    """How far a run is, how fast, how long it still takes: a bar on a terminal; now and then a line anywhere else.

    Args:
        total_steps: of the whole run.
        start_step: steps done before.
        line_seconds: between lines, at least.
        stream: standard error by default.
    """

    def __init__(self, total_steps: int, start_step: int, line_seconds: float = 30.0, stream: TextIO | None = None):
        self._total, self._step, self._line_seconds = total_steps, start_step, line_seconds
        self._stream = sys.stderr if stream is None else stream
        self._bar, self._last_line = None, -math.inf
        if self._stream.isatty():
            bar = {"unit": "step", "smoothing": 0.1, "dynamic_ncols": True}
            self._bar = tqdm(total=total_steps, initial=start_step, file=self._stream, **bar)

    def move(self, step: int) -> None:
        """This many steps are done."""
        if self._bar is not None:
            self._bar.update(step - self._step)
        self._step = step

    def tell(self, values: Mapping[str, float], rate: float | None) -> None:
        """Shows the newest loss; where there is no bar the rate in steps a second too, and the time left."""
        shown = f"loss {values['loss']:.4g}" if "loss" in values else ""
        if self._bar is not None:
            self._bar.set_postfix_str(shown)
            return
        now, ended = time.monotonic(), self._step >= self._total
        if now - self._last_line < self._line_seconds and not ended:
            return
        self._last_line = now
        parts = [f"step {self._step}/{self._total}"]
        if rate:
            left = tqdm.format_interval((self._total - self._step) / rate)
            parts += [f"{rate:.3g} steps/s", f"{left} left"]
        print(*parts, *filter(None, [shown]), sep=", ", file=self._stream, flush=True)

    def say(self, text: str) -> None:
        """Shows a line that stays."""
        tqdm.write(text, file=self._stream)

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()


class Board:
    """TensorBoard's event files, by tensorboardX.

    Args:
        folder: of the event files.
        start_step: steps done before; what TensorBoard has of later ones it hides.

    Raises:
        InterLCMError: tensorboardX isn't installed.
    """

    def __init__(self, folder: Path, start_step: int):
        writer = _tensorboardx().SummaryWriter
        self._writer = writer(str(folder), purge_step=start_step + 1, flush_secs=30)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a point to the curve of each name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def image(self, step: int, name: str, pixels: Any) -> None:
        """Adds a picture, uint8 (H, W, 3)."""
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Writes what waits."""
        self._writer.close()


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
