"""Checkpoints of a training run: whole or absent, written behind the training, read on any number of devices."""

import contextlib
import dataclasses
import errno
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding

from interlcm_jax.errors import InterLCMError, WeightsError
from interlcm_jax.training.orbax_manager import RUN, STATE, brief, items, misfits, open_manager

# What Orbax calls a checkpoint that isn't whole yet, after its step.
_UNFINISHED = ".orbax-checkpoint-tmp"


@dataclasses.dataclass(frozen=True)
class Restored:
    """What a checkpoint held.

    Attributes:
        state: the training state, of the target's structure and on its shardings.
        config: the run's configuration, as plain JSON values.
        position: batches taken from the data so far.
        step: the checkpoint's step.
    """

    state: Any
    config: dict[str, Any]
    position: int
    step: int


class Checkpoints:
    """The checkpoints in one folder, by step: the newest few, and the best by a held-out metric.

    Each process of a run opens the same folder and makes the same calls. A save that is cut off, by a full disk or
    `kill -9`, leaves the earlier checkpoints as they were, and what is left of it is cleared away by the next opening.

    Args:
        folder: is made where it doesn't exist.
        keep: how many of the newest are kept.
        best: name of the metric, of which more is better, whose best checkpoint is kept too.
        read_only: see `open`.

    Raises:
        InterLCMError: the folder can't be made or written to.
    """

    def __init__(self, folder: str | Path, *, keep: int = 3, best: str | None = None, read_only: bool = False):
        self.folder, self._best, self._saving = Path(folder).absolute(), best, None
        try:
            if self.folder.exists() and not self.folder.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, "it is a file")
            self._manager = open_manager(self.folder, keep, best, read_only)
        except OSError as error:
            raise InterLCMError(f"{self.folder}: checkpoints can't be kept here ({error.strerror})") from error

    @classmethod
    def open(cls, folder: str | Path, *, best: str | None = None) -> Self:
        """Opens checkpoints for reading alone: nothing in the folder is changed, and a trainer may be at work in it.

        Raises:
            InterLCMError: there are no checkpoints in this folder.
        """
        checkpoints = cls(folder, best=best, read_only=True)
        checkpoints._step(None)
        return checkpoints

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Where an error ends the block it is the news, rather than that a save failed too.
        with contextlib.nullcontext() if kind is None else contextlib.suppress(InterLCMError):
            self.close()

    def steps(self) -> list[int]:
        """Steps of the whole checkpoints, ascending; one that is being saved counts."""
        return list(self._manager.all_steps())

    def latest(self) -> int | None:
        """The newest checkpoint's step; None where there is none."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """The step of the best checkpoint by the metric; None where none has it."""
        return None if self._best is None else self._manager.best_step()

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
        if step in self._manager.all_steps():
            return
        tracked = None
        if metrics is not None and math.isfinite(metrics.get(self._best, math.nan)):
            tracked = {name: float(value) for name, value in metrics.items()}
        self._saving = step
        with self._reporting():
            args = items(_by_path(state), {"config": dict(config), "position": position})
            self._manager.save(step, args=args, metrics=tracked, force=True)

    def wait(self) -> None:
        """Waits until the last save is done.

        Raises:
            InterLCMError: it failed; names the folder, the step and the reason. Raised once.
        """
        with self._reporting():
            self._manager.wait_until_finished()
        self._saving = None

    def close(self) -> None:
        """Waits, and ends the writing threads.

        Raises:
            InterLCMError: the last save failed.
        """
        try:
            self.wait()
        finally:
            self._manager.close()

    def restore(self, target: Any, step: int | None = None) -> Restored:
        """Reads a whole checkpoint.

        Args:
            target: the state's structure, of `jax.ShapeDtypeStruct` with shardings; the checkpoint may have been saved
                on other devices and shardings.
            step: which one; None: the newest.

        Raises:
            InterLCMError: there is no such checkpoint, it is damaged, or it is of another architecture: then every
                missing, unexpected, mis-shaped and mis-typed path is listed, and nothing is read.
        """
        step = self._step(step)
        wanted = _by_path(target)
        problems = misfits(self._saved(step), wanted)
        if problems:
            raise WeightsError(
                self.folder / str(step),
                problems,
                "This checkpoint is of another model or optimizer; name another folder.",
            )
        arguments = {
            path: ocp.ArrayRestoreArgs(
                sharding=leaf.sharding or SingleDeviceSharding(jax.local_devices()[0]),
                global_shape=leaf.shape,
                dtype=leaf.dtype,
            )
            for path, leaf in wanted.items()
        }
        arrays = self._read(step, wanted, arguments)
        run = self._run(step)
        state = jax.tree.unflatten(jax.tree.structure(target), [arrays[path] for path in wanted])
        return Restored(state, run["config"], run["position"], step)

    def read(self, part: str, step: int | None = None) -> dict[str, np.ndarray]:
        """Reads one part of a state into this process' memory, and nothing else of it.

        Args:
            part: the name of the state's field, like "ema".
            step: which checkpoint; None: the newest.

        Returns:
            Its arrays by their path within it.

        Raises:
            InterLCMError: there is no such checkpoint or part, or it is damaged.
        """
        step = self._step(step)
        saved = self._saved(step)
        inside = {path: leaf for path, leaf in saved.items() if path.startswith(f"{part}/")}
        if not inside:
            parts = ", ".join(sorted({path.split("/")[0] for path in saved}))
            raise InterLCMError(f"{self.folder / str(step)}: has no part {part!r}; it has {parts}")
        arguments = {path: ocp.RestoreArgs(restore_type=np.ndarray) for path in inside}
        arrays = self._read(step, inside, arguments)
        return {path.removeprefix(f"{part}/"): array for path, array in arrays.items()}

    def read_config(self, step: int | None = None) -> dict[str, Any]:
        """The configuration of the run that saved this checkpoint (None: the newest).

        Raises:
            InterLCMError: there is no such checkpoint, or it is damaged.
        """
        return self._run(self._step(step))["config"]

    def _step(self, step: int | None) -> int:
        """The step asked for, which is there."""
        steps = self.steps()
        if not steps:
            what = "no checkpoint in it" if self.folder.is_dir() else "no such folder"
            raise InterLCMError(f"{self.folder}: {what}; name the folder of checkpoints of a training run")
        if step is not None and step not in steps:
            raise InterLCMError(f"{self.folder}: has no checkpoint of step {step}; it has {', '.join(map(str, steps))}")
        return steps[-1] if step is None else step

    def _saved(self, step: int) -> dict[str, Any]:
        """Shape and dtype of each saved array by path, without its data."""
        with self._reading(step):
            metadata = self._manager.item_metadata(step)[STATE]
            if metadata is None:
                raise FileNotFoundError("its list of arrays is missing")
            return dict(metadata.tree)

    def _read(self, step: int, wanted: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
        item = ocp.args.PyTreeRestore(item=dict(wanted), restore_args=dict(arguments), partial_restore=True)
        with self._reading(step):
            return self._manager.restore(step, args=ocp.args.Composite(**{STATE: item}))[STATE]

    def _run(self, step: int) -> dict[str, Any]:
        with self._reading(step):
            run = self._manager.restore(step, args=ocp.args.Composite(**{RUN: ocp.args.JsonRestore()}))[RUN]
            return {"config": run["config"], "position": run["position"]}

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        """Orbax and TensorStore raise many kinds of errors for files that are damaged: all mean this."""
        try:
            yield
        except Exception as error:
            raise InterLCMError(
                f"{self.folder / str(step)}: the checkpoint can't be read ({brief(error)}); move this folder away to "
                f"go on from an earlier one"
            ) from error

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """An error of saving, wherever it arises, names the checkpoint; what was written of it goes."""
        try:
            yield
        except Exception as error:
            step, self._saving = self._saving, None
            if jax.process_index() == 0:
                for left in self.folder.glob(f"{step}{_UNFINISHED}*"):
                    _remove(left)
            self._manager.reload()
            raise InterLCMError(
                f"{self.folder}: the checkpoint of step {step} can't be saved ({brief(error)}); the earlier ones are "
                f"whole. Make room or mend the folder, and run again: it goes on from step {self.latest() or 0}"
            ) from error


def _remove(folder: Path) -> None:
    """Removes what a failed save wrote, whose threads may go on for a moment and write again."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            break
        time.sleep(0.1)


def _by_path(tree: Any) -> dict[str, Any]:
    """A pytree's leaves by path, like "ema/visual_encoder.conv_in.kernel"."""
    leaves = jax.tree.leaves_with_path(tree)
    flat = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    assert len(flat) == len(leaves), "two leaves of one path"
    return flat
