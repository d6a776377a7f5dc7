"""Checkpoints of a training run: whole or absent, written behind the training."""

import contextlib
import math
import queue
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils

from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.paths import in_bucket
from interlcm_jax.training.checkpoint_reader import CheckpointReader, DamagedError, Restored
from interlcm_jax.training.checksums import checksums
from interlcm_jax.training.orbax_manager import brief, by_path, items, remove_unfinished
from interlcm_jax.training.run_folder import check_owned

# In the run's folder, beside the checkpoints': those that can't be read, once a run has fallen back.
DAMAGED = "damaged"
# Seconds between looks at a bucket that a checkpoint is written to.
_LOOK_EVERY = 1.0


class Checkpoints(CheckpointReader):
    """The checkpoints of a run, in one folder by step: the newest few, and the best by a held-out metric.

    Each process of a run opens the same folder and makes the same calls. A save that is cut off, by a full disk or
    `kill -9`, leaves the earlier checkpoints as they were, and what is left of it is cleared away by the next opening.

    Args:
        folder: is made where it doesn't exist.
        keep: how many of the newest are kept.
        best: name of the metric, of which more is better, whose best checkpoint is kept too.

    Raises:
        InterLCMError: the folder can't be made or written to.
    """

    def __init__(self, folder: str | Path, *, keep: int = 3, best: str | None = None):
        self._saving: int | None = None
        self._lost = False
        self._open(folder, best=best, keep=keep)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Where an error ends the block it is the news, rather than that a save failed too.
        with contextlib.nullcontext() if kind is None else contextlib.suppress(InterLCMError):
            self.close()

    def save(
        self,
        step: int,
        state: Any,
        *,
        config: Mapping[str, Any],
        position: int,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Starts to save a checkpoint and returns; `state` may be donated to the next step at once.

        Each process writes the shards that it holds. The save before this one is waited for. A step that is saved
        already is left as it is.

        Args:
            step: steps done.
            state: a pytree of arrays.
            config: the run's configuration, as plain JSON values.
            position: batches taken from the data so far.
            metrics: held-out metrics of this state; without the one that is tracked, or where it isn't finite, this
                checkpoint can't be the best.

        Raises:
            InterLCMError: the save before this one failed, or this one can't start.
        """
        self.wait()
        check_owned(self.folder.parent)
        if step in self._manager.all_steps():
            return
        tracked = None
        if metrics is not None and math.isfinite(metrics.get(self._best, math.nan)):
            tracked = {name: float(value) for name, value in metrics.items()}
        self._saving = step
        with self._reporting():
            arrays = by_path(state)
            run = {"config": dict(config), "position": position, "checksums": checksums(arrays)}
            args = items(arrays, run)
            self._manager.save(step, args=args, metrics=tracked, force=True)

    def wait(self) -> None:
        """Waits until the last save is done.

        Raises:
            InterLCMError: it failed; names the folder, the step and the reason. Raised once.
        """
        with self._reporting():
            if in_bucket(self.folder):
                self._wait_for_bucket()
            else:
                self._manager.wait_until_finished()
        self._saving = None

    def _wait_for_bucket(self) -> None:
        """Waits as long as the bucket answers: TensorStore by itself would try for a quarter of an hour."""
        ended: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

        def wait() -> None:
            try:
                ended.put(self._manager.wait_until_finished())
            except Exception as error:
                ended.put(error)

        threading.Thread(target=wait, daemon=True).start()
        while True:
            with contextlib.suppress(queue.Empty):
                error = ended.get(timeout=_LOOK_EVERY)
                break
            try:
                self.folder.exists()
            except InterLCMError:
                self._lost = True
                raise
        if error is not None:
            raise error

    def close(self) -> None:
        """Waits, and ends the writing threads.

        Raises:
            InterLCMError: the last save failed.
        """
        if self._lost:
            # The writing threads won't hear of the bucket's silence for a quarter of an hour.
            return
        try:
            self.wait()
        finally:
            self._manager.close()

    def restore_newest(self, target: Any, *, fall_back: bool = False) -> Restored:
        """Restores the newest checkpoint.

        Args:
            target: as for `restore`.
            fall_back: go on to the one before where one is damaged, which is moved out of the way.

        Raises:
            InterLCMError: as `restore`.
        """
        while True:
            try:
                return self.restore(target)
            except DamagedError as error:
                if not fall_back or len(self.steps()) < 2:
                    raise
                self._set_aside(self._step(None), error)

    def _set_aside(self, step: int, error: DamagedError) -> None:
        """Moves a checkpoint out of the way of the run that goes on before it; nothing is removed."""
        if jax.process_index() == 0:
            print(f"{error}\nfalling back to the one before; this one is moved to {DAMAGED}/", file=sys.stderr)
            aside = self.folder.parent / DAMAGED
            aside.mkdir(exist_ok=True)
            (self.folder / str(step)).rename(aside / f"{step}-{time.time_ns()}")
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"set {step} aside")
        self._manager.reload()

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """An error of saving, wherever it arises, names the checkpoint; what was written of it goes."""
        try:
            yield
        except Exception as error:
            step, self._saving = self._saving, None
            if in_bucket(self.folder):
                raise _lost(self.folder, step, error) from error
            if jax.process_index() == 0:
                remove_unfinished(self.folder, step)
            self._manager.reload()
            raise InterLCMError(
                f"{self.folder}: the checkpoint of step {step} can't be saved ({brief(error)}); the earlier ones are "
                f"whole. Make room or mend the folder, and run again: it goes on from step {self.latest() or 0}"
            ) from error


def _lost(folder: Path, step: int | None, error: Exception) -> InterLCMError:
    """What a save into a bucket failed by. What is there of it lacks its last object; the next opening removes it."""
    from interlcm_jax.files.bucket_errors import why

    return InterLCMError(
        f"{folder}: the checkpoint of step {step} can't be saved ({why(error)}); earlier ones are whole"
    )
