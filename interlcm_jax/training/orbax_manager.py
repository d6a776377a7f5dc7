"""Orbax' manager of checkpoints, set up for a training run and kept quiet."""

import logging
import os
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding
from orbax.checkpoint import checkpoint_managers as policies

from interlcm_jax.errors import describe

# The two items of a checkpoint: a flat dictionary of arrays by path, and a small JSON file.
STATE, RUN = "state", "run"
# What Orbax calls a checkpoint that isn't whole yet, after its step.
_UNFINISHED = ".orbax-checkpoint-tmp"


def open_manager(folder: Path, keep: int, best: str | None, read_only: bool) -> ocp.CheckpointManager:
    """The manager of a folder's checkpoints, which are written in the background.

    Unless it is read-only, what earlier runs left unfinished in the folder is cleared away.

    Args:
        folder: of the checkpoints.
        keep: how many of the newest are kept.
        best: name of the metric, of which more is better, whose best checkpoint is kept besides; None: no such.
        read_only: whether nothing in the folder may be changed.

    Raises:
        OSError: the folder can't be made, or not be written to.
    """
    _keep_quiet()
    metric = None if best is None else lambda metrics: metrics[best]
    kept = [policies.LatestN(keep)]
    if metric is not None:
        kept.append(policies.BestN(get_metric_fn=metric, n=1, keep_checkpoints_without_metrics=False))
    options = ocp.CheckpointManagerOptions(
        save_interval_steps=0 if read_only else 1,
        preservation_policy=policies.AnyPreservationPolicy(kept),
        best_fn=metric,
        best_mode="max",
        create=not read_only,
        cleanup_tmp_directories=not read_only,
        read_only=read_only,
    )
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    arrays, json = ocp.PyTreeCheckpointHandler(use_ocdbt=True), ocp.JsonCheckpointHandler()
    registry.add(STATE, ocp.args.PyTreeSave, arrays)
    registry.add(STATE, ocp.args.PyTreeRestore, arrays)
    registry.add(RUN, ocp.args.JsonSave, json)
    registry.add(RUN, ocp.args.JsonRestore, json)
    return ocp.CheckpointManager(os.fspath(folder), options=options, handler_registry=registry)


def items(state: Mapping, run: Mapping) -> ocp.args.Composite:
    """What to save: arrays by path, and JSON values."""
    return ocp.args.Composite(**{STATE: ocp.args.PyTreeSave(dict(state)), RUN: ocp.args.JsonSave(dict(run))})


def by_path(tree: Any) -> dict[str, Any]:
    """A pytree's leaves by path, like "ema/visual_encoder.conv_in.kernel"."""
    leaves = jax.tree.leaves_with_path(tree)
    flat = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    assert len(flat) == len(leaves), "two leaves of one path"
    return flat


def restore_arguments(wanted: Mapping[str, Any]) -> dict[str, ocp.ArrayRestoreArgs]:
    """Where arrays are restored to, by path, for targets with or without a sharding."""
    return {
        path: ocp.ArrayRestoreArgs(
            sharding=leaf.sharding or SingleDeviceSharding(jax.local_devices()[0]),
            global_shape=leaf.shape,
            dtype=leaf.dtype,
        )
        for path, leaf in wanted.items()
    }


def remove_unfinished(folder: Path, step: int) -> None:
    """Removes what a failed save wrote, whose threads may go on for a moment and write again."""
    for left in folder.glob(f"{step}{_UNFINISHED}*"):
        for _ in range(50):
            shutil.rmtree(left, ignore_errors=True)
            if not left.exists():
                break
            time.sleep(0.1)


def misfits(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """One line for each kind of difference between a checkpoint and a target."""
    both = [path for path in wanted if path in saved]
    shapes = [(path, tuple(saved[path].shape), tuple(wanted[path].shape)) for path in both]
    dtypes = [(path, np.dtype(saved[path].dtype), np.dtype(wanted[path].dtype)) for path in both]
    return [
        *describe("missing", sorted(wanted.keys() - saved.keys())),
        *describe("unexpected", sorted(saved.keys() - wanted.keys())),
        *describe("mis-shaped", [f"{path} {old} instead of {new}" for path, old, new in shapes if old != new]),
        *describe("of another dtype", [f"{path} {old} instead of {new}" for path, old, new in dtypes if old != new]),
    ]


def brief(error: BaseException) -> str:
    """The system's own words where it is its error; else the first line, without TensorStore's insides."""
    text = str(error).strip()
    if code := re.search(r"os_error_code='(\d+)'", text):
        return os.strerror(int(code[1]))
    return text.splitlines()[0].split(" [tensorstore_spec=")[0][:300] if text else type(error).__name__


def _keep_quiet() -> None:
    """Keeps from the terminal what Orbax says of each thread and barrier, and of errors that it raises as well."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_not_of_orbax)
    if not isinstance(sys.unraisablehook, _ClosedLoops):
        sys.unraisablehook = _ClosedLoops(sys.unraisablehook)


def _not_of_orbax(record: logging.LogRecord) -> bool:
    """Whether a log record is neither written by Orbax nor of an error that arose in it."""
    frames = traceback.walk_tb(record.exc_info[2]) if record.exc_info else ()
    files = [record.pathname, *(frame.f_code.co_filename for frame, _ in frames)]
    return not any("orbax" in Path(file).parts for file in files)


class _ClosedLoops:
    """Passes over one error: after a failed write TensorStore tells Orbax' event loop of each array's end, but the
    loop has ended. That is a page of tracebacks for each array, before the one error that matters.
    """

    def __init__(self, otherwise: Callable[["sys.UnraisableHookArgs"], object]):
        self._otherwise = otherwise

    def __call__(self, raised: "sys.UnraisableHookArgs") -> None:
        files = {Path(frame.f_code.co_filename).parent.name for frame, _ in traceback.walk_tb(raised.exc_traceback)}
        if (
            raised.exc_type is not RuntimeError
            or str(raised.exc_value) != "Event loop is closed"
            or files != {"asyncio"}
        ):
            self._otherwise(raised)
