"""Checkpoints, read: on any number of devices, checked against their checksums, while a trainer may be at work."""

import contextlib
import dataclasses
import errno
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp

from interlcm_jax.errors import InterLCMError, WeightsError, describe
from interlcm_jax.files.paths import to_path
from interlcm_jax.training.checksums import mismatched
from interlcm_jax.training.orbax_manager import (
    RUN,
    STATE,
    brief,
    by_path,
    misfits,
    open_manager,
    restore_arguments,
)


class DamagedError(InterLCMError):
    """A checkpoint that can't be read, or not as it was saved."""


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


class CheckpointReader:
    """The checkpoints in one folder, by step. Nothing in the folder is changed.

    Args:
        folder: of the checkpoints.
        best: name of the metric, of which more is better, by which `best` tells the best checkpoint.

    Raises:
        InterLCMError: there are no checkpoints in this folder.
    """

    def __init__(self, folder: str | Path, *, best: str | None = None):
        self._open(folder, best=best, read_only=True)
        self._step(None)

    def _open(self, folder: str | Path, *, best: str | None, keep: int = 1, read_only: bool = False) -> None:
        self.folder, self._best = to_path(folder).absolute(), best
        if str(folder).startswith("s3://"):
            raise InterLCMError(f"{folder}: Orbax keeps checkpoints on disks and in gs:// alone; name another folder")
        try:
            if self.folder.exists() and not self.folder.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, "it is a file")
            self._manager = open_manager(self.folder, keep, best, read_only)
        except OSError as error:
            raise InterLCMError(f"{self.folder}: checkpoints can't be kept here ({error.strerror})") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the reading threads."""
        self._manager.close()

    def steps(self) -> list[int]:
        """Steps of the whole checkpoints, ascending; one that is being saved counts."""
        return list(self._manager.all_steps())

    def latest(self) -> int | None:
        """The newest checkpoint's step; None where there is none."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """The step of the best checkpoint by the metric; None where none has it."""
        return None if self._best is None else self._manager.best_step()

    def restore(self, target: Any, step: int | None = None) -> Restored:
        """Reads a whole checkpoint.

        Args:
            target: the state's structure, of `jax.ShapeDtypeStruct` with shardings; the checkpoint may have been saved
                on other devices and shardings.
            step: which one; None: the newest.

        Raises:
            DamagedError: it can't be read, or isn't what was saved.
            InterLCMError: there is no such checkpoint, or it is of another architecture: then every missing,
                unexpected, mis-shaped and mis-typed path is listed, and nothing is read.
        """
        step = self._step(step)
        wanted = by_path(target)
        problems = misfits(self._saved(step), wanted)
        if problems:
            raise WeightsError(
                self.folder / str(step),
                problems,
                "This checkpoint is of another model or optimizer; name another folder.",
            )
        arrays, run = self._read(step, wanted, restore_arguments(wanted)), self._run(step)
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
            arrays = self._manager.restore(step, args=ocp.args.Composite(**{STATE: item}))[STATE]
            if wrong := mismatched(arrays, self._run(step)["checksums"]):
                raise ValueError("; ".join(describe("arrays aren't what was saved", wrong)))
            return arrays

    def _run(self, step: int) -> dict[str, Any]:
        with self._reading(step):
            run = self._manager.restore(step, args=ocp.args.Composite(**{RUN: ocp.args.JsonRestore()}))[RUN]
            # Version 0.1 saved no checksums.
            return {"config": run["config"], "position": run["position"], "checksums": run.get("checksums", {})}

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        """Orbax and TensorStore raise many kinds of errors for files that are damaged: all mean this."""
        try:
            yield
        except DamagedError:
            raise
        except Exception as error:
            raise DamagedError(
                f"{self.folder / str(step)}: the checkpoint can't be read ({brief(error)}); an earlier one may serve: "
                "train.py takes it with --fall-back, interlcm export with --step"
            ) from error
