"""What a run costs the device: its memory, and on request a trace of a few steps."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import jax

GIB = 2**30


def device_memory() -> dict[str, float]:
    """Memory of this process's first device in GiB, now and at its highest; without such numbers the process's highest.

    CPU devices tell none, and Windows no process's: then there are no numbers.
    """
    stats = jax.local_devices()[0].memory_stats() or {}
    named = {"memory/device": "bytes_in_use", "memory/device_peak": "peak_bytes_in_use"}
    told = {name: stats[key] / GIB for name, key in named.items() if key in stats}
    return told or _process_memory()


def _process_memory() -> dict[str, float]:
    try:
        import resource
    except ImportError:
        return {}
    # In bytes on macOS, in KiB elsewhere.
    unit = 1 if sys.platform == "darwin" else 2**10
    return {"memory/process_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB}


class ProfileSteps:
    """Writes a trace of a few steps, for TensorBoard's profile plugin or Perfetto; process 0 alone.

        with ProfileSteps(folder / "profile", first=3, count=3) as profile:
            for step in ...:
                with profile.step(step, metrics):
                    state, metrics = train_step(state, batch)

    Args:
        folder: of the trace; None where no step is traced.
        first: the first step of the trace. Steps before it compile, so a small number does, but not the run's first.
            None: no trace.
        count: steps it covers.
    """

    def __init__(self, folder: str | Path, first: int | None, count: int = 3):
        self._folder, self._first, self._count = Path(folder), first, count
        self._wanted = first is not None and jax.process_index() == 0
        self._tracing = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    @contextlib.contextmanager
    def step(self, step: int, before: Any = None) -> Iterator[None]:
        """One step: starts or ends the trace ahead of it where that is due.

        Args:
            step: its number.
            before: arrays of the step before it, which are waited for at both ends of the trace, so that it holds the
                work of its own steps and all of it.
        """
        if self._wanted and step >= self._first + self._count:
            jax.block_until_ready(before)
            self._stop()
            self._wanted = False
        elif self._wanted and not self._tracing and step >= self._first:
            jax.block_until_ready(before)
            jax.profiler.start_trace(self._folder)
            self._tracing = True
        with jax.profiler.StepTraceAnnotation("train", step_num=step) if self._tracing else contextlib.nullcontext():
            yield

    def _stop(self) -> None:
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()
