"""What a person sees of a run: progress, losses, pictures. Fetched one step late, so that the device never waits."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

import jax
import numpy as np
from jaxtyping import Array, Float, Int64

from interlcm_jax.errors import InterLCMError
from interlcm_jax.imaging.io import write_image
from interlcm_jax.training.profile import device_memory
from interlcm_jax.training.samples import Pictures, sample_grid
from interlcm_jax.training.writers import Board, LogFile, Progress

Metrics = Mapping[str, Float[Array, ""]]
Indices = Int64[np.ndarray, "b"]


@dataclasses.dataclass(frozen=True)
class _Step:
    """A step that the device may not be done with yet."""

    step: int
    metrics: Metrics
    indices: Indices

    def fetch(self) -> dict[str, float]:
        return {name: float(value) for name, value in jax.device_get(dict(self.metrics)).items()}


class RunLog:
    """The log of a run: `log.jsonl`, TensorBoard's files, pictures in `samples/`, and a progress line.

    Every process of a run opens it and makes the same calls: each checks its numbers, and process 0 alone writes. A
    `step` is the number of steps done, as a checkpoint's is.

        with RunLog(folder, total_steps, start_step) as log:
            for step in range(start_step + 1, total_steps + 1):
                state, metrics = train_step(state, batch)
                log.add(step, metrics, indices)

    Args:
        folder: of the run; is made where it doesn't exist.
        total_steps: of the whole run.
        start_step: steps done before; the log of later ones is dropped, for they are run again.
        log_every: steps between lines of the log.
        line_seconds: between progress lines, at least, where standard error is no terminal.

    Raises:
        InterLCMError: the log can't be written, or tensorboardX isn't installed.
    """

    def __init__(
        self,
        folder: str | Path,
        total_steps: int,
        start_step: int = 0,
        *,
        log_every: int = 50,
        line_seconds: float = 30.0,
    ):
        self.folder, self.total_steps, self.log_every = Path(folder), total_steps, log_every
        self._held: list[_Step] = []
        self._asked = False
        self._clock: tuple[int, float] | None = None
        self._writes = jax.process_index() == 0
        if self._writes:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InterLCMError(f"{self.folder}: the run's folder can't be made ({error.strerror})") from error
            self._file = LogFile(self.folder / "log.jsonl", start_step)
            self._board = Board(self.folder / "tensorboard", start_step)
            self._progress = Progress(total_steps, start_step, line_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            # After an error the device may never be done with what is held.
            if kind is None:
                self.flush()
        finally:
            if self._writes:
                self._progress.close()
                self._board.close()

    def add(self, step: int, metrics: Metrics, indices: Indices) -> None:
        """Takes a step that was just given to the device, and doesn't wait for it.

        Every `log_every` steps, at the last, and at the first (which compiles, so the rate counts from its end) the
        numbers are fetched, by the call of the step after it.

        Args:
            step: steps done with this one.
            metrics: scalars on the device, the same on every process.
            indices: of this process's images in the data.

        Raises:
            InterLCMError: numbers of an earlier step aren't finite, see `stop_on_nonfinite`; or the log can't be
                written.
        """
        self._settle()
        self._held.append(_Step(step, metrics, indices))
        if self._clock is None or self._is_due(step):
            self._asked = True
            for value in metrics.values():
                value.copy_to_host_async()
        self._show_done()

    def flush(self) -> None:
        """Waits for the newest step, checks its numbers, and writes what is due: call it before a checkpoint is saved.

        Raises:
            InterLCMError: as `add`.
        """
        self._asked = bool(self._held)
        self._settle()

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Between steps: what is done in this block doesn't count as the steps' time."""
        self.flush()
        began = time.monotonic()
        yield
        if self._clock is not None:
            step, fetched = self._clock
            self._clock = step, fetched + time.monotonic() - began

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Logs numbers that are on the host already, such as held-out metrics, as a line of their own.

        Raises:
            InterLCMError: as `flush`, which comes first.
        """
        self.flush()
        if self._writes:
            values = {name: float(value) for name, value in values.items()}
            self._write(step, values)
            told = ", ".join(f"{name.rpartition('/')[2]} {value:.4g}" for name, value in values.items())
            self._progress.say(f"step {step}/{self.total_steps}, held-out faces: {told}")

    def samples(self, step: int, lq: Pictures, restored: Pictures, hq: Pictures) -> None:
        """Shows pictures: TensorBoard's `samples`, and `samples/step_00000100.png`; see `sample_grid`.

        Raises:
            InterLCMError: they aren't uint8 of one shape, or the file can't be written.
        """
        if self._writes:
            grid = sample_grid(lq, restored, hq)
            write_image(self.folder / "samples" / f"step_{step:08d}.png", grid)
            self._board.image(step, "samples", grid)

    def _is_due(self, step: int) -> bool:
        return step % self.log_every == 0 or step == self.total_steps

    def _settle(self) -> None:
        """Fetches the newest step if it was asked for; where it went wrong, the earlier ones tell since when."""
        if not self._asked:
            return
        self._asked = False
        newest = self._held[-1]
        values = newest.fetch()
        if not all(map(math.isfinite, values.values())):
            for held in self._held:
                stop_on_nonfinite(held.step, held.fetch(), held.indices)
        self._held.clear()
        rate = self._rate(newest.step)
        if not self._writes:
            return
        self._progress.move(newest.step)
        if self._is_due(newest.step):
            speed = {} if rate is None else {"steps_per_second": rate}
            self._write(newest.step, values | speed | device_memory())
            self._progress.tell(values, rate)

    def _rate(self, step: int) -> float | None:
        """Steps a second since the step that was fetched before; None at the first."""
        now = time.monotonic()
        before, self._clock = self._clock, (step, now)
        return None if before is None else (step - before[0]) / max(now - before[1], 1e-9)

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        self._file.write(step, {"time": round(time.time(), 3), **values})
        self._board.scalars(step, values)

    def _show_done(self) -> None:
        """Moves the progress to the last step that the device is done with, without waiting."""
        done = [held.step for held in self._held if all(value.is_ready() for value in held.metrics.values())]
        if self._writes and done:
            self._progress.move(done[-1])


def stop_on_nonfinite(step: int, metrics: Mapping[str, float], indices: Indices) -> None:
    """Checks that a step's numbers are finite.

    Args:
        step: of the numbers.
        metrics: its losses and norms, on the host.
        indices: of this process's images in the data.

    Raises:
        InterLCMError: some aren't; names the step, which they are, and the batch's indices.
    """
    odd = [f"{name} is {value}" for name, value in metrics.items() if not math.isfinite(value)]
    if odd:
        images = ", ".join(str(index) for index in indices)
        raise InterLCMError(
            f"step {step}: {', '.join(odd)}, on the images of index {images}. Look at those images; else lower the "
            "learning rate or clip the gradients, and go on from the last checkpoint"
        )
