"""How fast a run is, and how much of its time goes into steps: measured by the host, without making the device wait."""

import contextlib
import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from interlcm_jax.runtime.compiler_options import platform_of
from interlcm_jax.training.flops import matrix_flops

# FLOP/s of a device in bfloat16, without sparsity (float16 where it has no bfloat16), by the kind that JAX names.
# TPUs: "System architecture" of each version in Google Cloud's documentation; of v2, v3 and 7x a device is half a chip.
# GPUs: NVIDIA's data sheets.
PEAK_FLOPS = {
    "TPU v2": 22.5e12,
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 1153.5e12,
    "Tesla T4": 65e12,
    "Tesla V100-SXM2-16GB": 125e12,
    "Tesla V100-SXM2-32GB": 125e12,
    "NVIDIA A10G": 70e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
}
# Steps whose times make the usual one.
_RECENT = 101


@dataclasses.dataclass(frozen=True)
class StepCost:
    """What a step is.

    Attributes:
        images: over all devices.
        devices: that share it.
        flops: of its matrix products and convolutions, over all devices; what is computed twice counts twice. None
            where nobody has counted them.
        peak: FLOP/s that a device can do; None where that isn't known.
    """

    images: int
    devices: int
    flops: float | None = None
    peak: float | None = None


def step_cost(program: Callable[..., Any], arguments: Sequence[Any], images: int, devices: int) -> StepCost:
    """Of a program of `compiler_options.jit` and its arguments. JAX keeps what it traces here for the first call.

    XLA's own count takes a loop's body once, and so a fraction of a step with several network calls.
    """
    traced = program.on(platform_of(arguments)).trace(*arguments)
    kind = jax.local_devices()[0].device_kind
    return StepCost(images, devices, matrix_flops(traced.jaxpr.jaxpr), PEAK_FLOPS.get(kind))


class Clock:
    """When steps end, what is waited for, and what becomes of the run's time.

    Args:
        step: steps done before.
        earlier: the last line of the log up to there, if there is one; the run's time goes on from it.
    """

    def __init__(self, step: int, earlier: Mapping[str, Any] | None = None):
        self._productive = self._elapsed = 0.0
        self._since = time.time()
        if earlier and "seconds/steps" in earlier:
            # A checkpoint may be some steps after the last line: they took as long as those before.
            self._productive = earlier["seconds/steps"] * step / max(earlier["step"], 1)
            self._since = earlier["time"] - earlier["seconds/run"]
        self._ended: float | None = None
        self._steps: list[float] = []
        self._data = 0.0
        self._recent: deque[float] = deque(maxlen=_RECENT)
        # What a watchdog in another thread reads, at once: steps done, what the loop is at, and since when.
        self.now: tuple[int, str, float] = (step, "", time.monotonic())

    def usual(self) -> float | None:
        """The median seconds of the last steps; None until there are ten."""
        recent = list(self._recent)
        return float(np.median(recent)) if len(recent) >= 10 else None

    def ended(self, step: int) -> None:
        """The device is done with this step. The first one compiles, and so isn't counted."""
        now = time.monotonic()
        if self._ended is not None:
            self._steps.append(now - self._ended)
            self._recent.append(now - self._ended)
            self._productive += now - self._ended
        self._ended = now
        self.now = step, "step", now

    @contextlib.contextmanager
    def at(self, what: str) -> Iterator[None]:
        """The loop waits for data in this block, or is at something that doesn't count as steps' time."""
        began, (step, before, _) = time.monotonic(), self.now
        self.now = step, what, began
        yield
        now = time.monotonic()
        self.now = step, before, now
        if what == "data":
            self._data += now - began
        elif self._ended is not None:
            self._ended += now - began

    def interval(self, cost: StepCost | None) -> dict[str, float | None]:
        """The numbers of the steps since the last call, for a line of the log; none before the second step."""
        steps, data = np.asarray(self._steps), self._data
        self._steps, self._data = [], 0.0
        if not len(steps):
            return self._run()
        mean = max(steps.mean(), 1e-9)
        told = {
            "steps_per_second": 1 / mean,
            "step_seconds/p50": float(np.percentile(steps, 50)),
            "step_seconds/p95": float(np.percentile(steps, 95)),
            "step_seconds/data": data / len(steps),
        }
        return told | ({} if cost is None else _speeds(cost, mean)) | self._run()

    def _run(self) -> dict[str, float]:
        elapsed = time.time() - self._since
        share = self._productive / elapsed if elapsed > 0 else math.nan
        return {"goodput": min(share, 1.0), "seconds/steps": self._productive, "seconds/run": elapsed}


def _speeds(cost: StepCost, seconds: float) -> dict[str, float | None]:
    images = cost.images / seconds
    done = None if cost.flops is None else cost.flops / cost.devices / seconds
    return {
        "images_per_second": images,
        "images_per_second_per_device": images / cost.devices,
        "tflops_per_device": None if done is None else done / 1e12,
        "mfu": None if done is None or cost.peak is None else done / cost.peak,
    }
