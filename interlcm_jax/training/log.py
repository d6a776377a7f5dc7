"""What a person sees of a run: progress, losses, pictures. Fetched one step late, so that the device never waits."""

import contextlib
import dataclasses
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
from jaxtyping import Array, Float, Int64

from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.paths import in_bucket, to_path
from interlcm_jax.imaging.io import write_image
from interlcm_jax.training.board import Board
from interlcm_jax.training.log_file import LogFile, LogPieces
from interlcm_jax.training.mirror import PATIENCE, Mirror
from interlcm_jax.training.profile import device_memory
from interlcm_jax.training.progress import Progress
from interlcm_jax.training.samples import Pictures, sample_grid
from interlcm_jax.training.speed import Clock, StepCost
from interlcm_jax.training.tracker import Tracker

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
    `step` is the number of steps done, as a checkpoint's is. In a bucket the log is `log-00001.jsonl` and so on, and
    all is written on this machine and copied up every 30 s, and by `flush`.

        with RunLog(folder, total_steps, start_step) as log:
            for step in range(start_step + 1, total_steps + 1):
                with log.clock.at("data"):
                    batch = next(images)
                state, metrics = train_step(state, batch)
                log.add(step, metrics, indices)

    Args:
        folder: of the run, a `pathlib.Path` or of a bucket an `etils.epath.Path`; is made where it doesn't exist.
        total_steps: of the whole run.
        start_step: steps done before; the log of later ones is dropped, for they are run again.
        log_every: steps between lines of the log.
        line_seconds: between progress lines, at least, where standard error is no terminal.
        tracker: opens one more place that numbers and pictures go to; called by process 0.

    Attributes:
        clock: of the steps.
        local: the folder where it is written, on this machine.
        cost: what a step is, for images and FLOPs a second; None until it is known.

    Raises:
        InterLCMError: the log can't be written, or tensorboardX isn't installed.
    """

    def __init__(
        self,
        folder: Any,
        total_steps: int,
        start_step: int = 0,
        *,
        log_every: int = 50,
        line_seconds: float = 30.0,
        tracker: Callable[[], Tracker] | None = None,
    ):
        folder = to_path(folder) if isinstance(folder, str) else folder
        self.folder, self.total_steps, self.log_every = folder, total_steps, log_every
        self.cost: StepCost | None = None
        self._held: list[_Step] = []
        self._asked = self._timed = self._began = False
        self._writes = jax.process_index() == 0
        self.local = folder
        self._mirror: Mirror | None = None
        if self._writes:
            self._open(start_step)
            self._shown: list[Tracker] = [Board(self.local / "tensorboard", start_step)]
            self._shown += [tracker()] if tracker else []
            self._progress = Progress(total_steps, start_step, line_seconds)
        self.clock = Clock(start_step, self._file.earlier if self._writes else None)

    def _open(self, start_step: int) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InterLCMError(f"{self.folder}: the run's folder can't be made ({error.strerror})") from error
        if isinstance(self.folder, Path) and not in_bucket(self.folder):
            self._file: LogFile | LogPieces = LogFile(self.folder / "log.jsonl", start_step)
        else:
            self.local = Path(tempfile.mkdtemp(prefix="interlcm-log-"))
            self._file = LogPieces(self.local, self.folder, start_step)
            self._mirror = Mirror(self.local, self.folder)

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
                for shown in self._shown:
                    shown.close()
            if self._mirror:
                self._close_mirror(self._mirror, failed=kind is not None)

    def _close_mirror(self, mirror: Mirror, failed: bool) -> None:
        # An error that ends the run is the news, rather than that its log can't be written.
        with contextlib.suppress(InterLCMError) if failed else contextlib.nullcontext():
            mirror.close(patience=0 if failed else PATIENCE)
            shutil.rmtree(self.local)

    def add(self, step: int, metrics: Metrics, indices: Indices) -> None:
        """Takes a step that was just given to the device, and waits for the one before it, so for no idle device.

        Every `log_every` steps, at the last, and at the first (which compiles, so the clock counts from its end) the
        numbers are fetched, by the call of the step after it.

        Args:
            step: steps done with this one.
            metrics: scalars on the device, the same on every process.
            indices: of this process's images in the data.

        Raises:
            InterLCMError: numbers of an earlier step aren't finite, see `stop_on_nonfinite`; or the log can't be
                written.
        """
        self._await_newest()
        self._settle()
        self._held.append(_Step(step, metrics, indices))
        self._timed = False
        if self._is_due(step) or not self._began:
            self._asked = self._began = True
            for value in metrics.values():
                value.copy_to_host_async()

    def flush(self) -> None:
        """Waits for the newest step, checks its numbers, and writes what is due: call it before a checkpoint is saved.

        Raises:
            InterLCMError: as `add`.
        """
        self._await_newest()
        self._asked = bool(self._held)
        self._settle()
        if self._writes:
            for shown in self._shown:
                shown.flush()
        if self._mirror:
            self._mirror.copy()

    @contextlib.contextmanager
    def pause(self, what: str) -> Iterator[None]:
        """Between steps: what is done in this block, like "validation", doesn't count as the steps' time."""
        self.flush()
        with self.clock.at(what):
            yield

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
            write_image(self.local / "samples" / f"step_{step:08d}.png", grid)
            for shown in self._shown:
                shown.image(step, "samples", grid)

    def _is_due(self, step: int) -> bool:
        return step % self.log_every == 0 or step == self.total_steps

    def _await_newest(self) -> None:
        """Waits until the device is done with the newest step, and notes when that was."""
        if self._held and not self._timed:
            jax.block_until_ready(self._held[-1].metrics)
            self._timed = True
            self.clock.ended(self._held[-1].step)
            if self._writes:
                self._progress.move(self._held[-1].step)

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
        if self._writes and self._is_due(newest.step):
            speed = self.clock.interval(self.cost)
            self._write(newest.step, values | speed | device_memory())
            self._progress.tell(values, speed.get("steps_per_second"))

    def _write(self, step: int, values: Mapping[str, float | None]) -> None:
        self._file.write(step, {"time": round(time.time(), 3), **values})
        for shown in self._shown:
            shown.scalars(step, values)


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
