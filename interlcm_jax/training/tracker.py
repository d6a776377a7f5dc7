"""Where else a run's numbers and pictures go: services that show them, each behind the same few calls."""

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.paths import in_bucket

# In the run's folder: what the service calls the run.
RUN_ID = "wandb-run-id.txt"


class Tracker(Protocol):
    """What a run shows is told to it, in the order of the steps."""

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        """Numbers by name; None where there is none."""

    def image(self, step: int, name: str, pixels: Any) -> None:
        """A picture, uint8 (H, W, 3)."""

    def flush(self) -> None:
        """Whatever was told is kept, should the process be killed."""

    def close(self) -> None:
        """There is no more."""


class Wandb:
    """Weights & Biases. A run that goes on does so there too, and steps that it has already it doesn't take twice.

    Args:
        folder: of the run; its last name is the run's.
        config: shown beside the curves.
        start_step: steps done before.

    Raises:
        InterLCMError: wandb isn't installed, or can't start.
    """

    def __init__(self, folder: Any, config: Mapping[str, Any], start_step: int):
        try:
            import wandb
        except ImportError as error:
            raise InterLCMError(
                f"run.tracker is wandb, which isn't installed ({error}): pip install 'interlcm-jax[wandb]'"
            ) from error
        self._image = wandb.Image
        try:
            self._run = wandb.init(
                project="interlcm_jax",
                name=folder.name,
                id=_run_id(folder, start_step),
                resume="allow",
                config=dict(config),
                dir=str(folder) if isinstance(folder, Path) and not in_bucket(folder) else None,
            )
        # Of many kinds: no login, no network, a name that is taken.
        except Exception as error:
            raise InterLCMError(
                f"run.tracker is wandb, which can't start ({error}). Log in by `wandb login`, or set WANDB_MODE=offline"
            ) from error

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        """See `Tracker`."""
        self._run.log({name: value for name, value in values.items() if value is not None}, step=step)

    def image(self, step: int, name: str, pixels: Any) -> None:
        """See `Tracker`."""
        self._run.log({name: self._image(pixels)}, step=step)

    def flush(self) -> None:
        """wandb keeps what it is told in a process of its own."""

    def close(self) -> None:
        """See `Tracker`."""
        self._run.finish()


def _run_id(folder: Any, start_step: int) -> str:
    path = folder / RUN_ID
    if start_step and path.exists():
        return path.read_text()
    folder.mkdir(parents=True, exist_ok=True)
    name = uuid.uuid4().hex[:12]
    path.write_text(name)
    return name
