"""Going on with a run, or from another one: from which checkpoint, and what its configuration may have changed."""

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from interlcm_jax.errors import InterLCMError
from interlcm_jax.training.checkpoint import Checkpoints
from interlcm_jax.training.checkpoint_reader import CheckpointReader, Restored
from interlcm_jax.training.config import flat
from interlcm_jax.training.release import CHECKPOINTS

# With any of these another, the run isn't the one that it would have been: other images, other noise, another process.
PROMISED = ("seed", "data.records", "model.num_network_calls")
# Numbers don't depend on these.
_SILENT = ("run.", "model.weights", "data.workers", "data.prefetch", "data.local_cache")


@dataclasses.dataclass(frozen=True)
class GoingOn:
    """What the command line says of going on.

    Attributes:
        resume: another run, whose newest checkpoint starts this one if it has none of its own.
        fall_back: where the newest checkpoint is damaged, the one before serves.
        allow_changes: also of what a run promises to keep.
    """

    resume: Path | None = None
    fall_back: bool = False
    allow_changes: bool = False

    def restore(self, target: Any, checkpoints: Checkpoints, today: Mapping[str, Any]) -> Restored | None:
        """The checkpoint to go on from, None where there is none; what changed since is printed.

        Args:
            target: as for `CheckpointReader.restore`.
            checkpoints: the run's.
            today: what the run's next checkpoint says of its configuration.

        Raises:
            InterLCMError: the checkpoint can't be read or doesn't fit; or a run would break its promise.
        """
        own = checkpoints.latest() is not None
        if own:
            restored = checkpoints.restore_newest(target, fall_back=self.fall_back)
        elif self.resume is not None:
            with CheckpointReader(self.resume / CHECKPOINTS) as others:
                restored = others.restore(target)
        else:
            return None
        found = changes(restored.config, today)
        if jax.process_index() == 0 and found:
            print(f"changed since step {restored.step}: {'; '.join(found.values())}", file=sys.stderr)
        if own and not self.allow_changes:
            refuse_broken_promises(found)
        return restored


def changes(saved: Mapping[str, Any], today: Mapping[str, Any]) -> dict[str, str]:
    """One line for each field of both that differs, by the field's name, like "optimizer.learning_rate".

    Args:
        saved: what a checkpoint says of its run: "train", "model" and "records", JSON values.
        today: the same of today, which may have other fields.
    """
    old, new = _named(saved), _named(json.loads(json.dumps(today)))
    both = [name for name in new if name in old and not name.startswith(_SILENT)]
    return {name: f"{name} is {new[name]}, and was {old[name]}" for name in both if new[name] != old[name]}


def refuse_broken_promises(found: Mapping[str, str]) -> None:
    """Refuses changes after which the run can't go on as if it had never stopped.

    Raises:
        InterLCMError: there are such; names each and what to do.
    """
    if broken := [line for name, line in found.items() if name in PROMISED]:
        raise InterLCMError(
            f"the run can't go on as it began: {'; '.join(broken)}. Give what it was, or another run.folder; "
            "--allow-changes goes on all the same"
        )


def _named(saved: Mapping[str, Any]) -> dict[str, Any]:
    """All fields by their names on the command line, the model's after "model."."""
    train = flat(saved["train"])
    rest = {"model": saved.get("model", {}), "data": {"records": saved["records"]} if "records" in saved else {}}
    return train | flat(rest)
