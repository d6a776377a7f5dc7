"""How far a run is, on the terminal."""

import math
import sys
import time
from collections.abc import Mapping
from typing import TextIO

from tqdm import tqdm


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
