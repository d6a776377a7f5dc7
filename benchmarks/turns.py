"""Two sides of a comparison, each in a process of its own, that work in turns: one is idle while the other works.

A machine that slows down slows both, and the peak memory of a process is that of its side alone.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

OURS, THEIRS = "interlcm_jax", "PyTorch"
COLUMNS = {"side": "", "seconds": ".3g", "of_theirs": ".2f", "peak_gb": ".2f", "first_seconds": ".1f"}


class Worker:
    """A process that works when told to; it has worked once when this returns.

    Args:
        command: arguments of Python: a program that calls `serve`.
        environment: variables besides this process's.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None):
        start = time.perf_counter()
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", **(environment or {})}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, *command], env=environment, **pipes)
        self.work()
        self.first_seconds = time.perf_counter() - start

    def work(self) -> float:
        """The seconds that it takes to work once."""
        return self._tell("work")["seconds"]

    def end(self) -> dict[str, Any]:
        """Ends the process; returns a row: its peak memory, GB, and what else `serve` was given to tell."""
        with self.process:
            return {"first_seconds": self.first_seconds, **self._tell("end")}

    def _tell(self, what: str) -> dict[str, Any]:
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        if line := self.process.stdout.readline():
            return json.loads(line)
        with self.process:
            raise SystemExit(f"a process ended with exit code {self.process.wait()}; its messages are above")


def take_turns(workers: Mapping[str, Worker], repeats: int) -> list[dict[str, Any]]:
    """A row of each side: median seconds, their share of PyTorch's, and what the process tells at its end."""
    seconds: dict[str, list[float]] = {side: [] for side in workers}
    for turn in range(repeats):
        for side, worker in workers.items():
            seconds[side].append(worker.work())
            print(f"turn {turn + 1}: {side} {seconds[side][-1]:.3g} s", file=sys.stderr)
    medians = {side: statistics.median(times) for side, times in seconds.items()}
    return [
        {"side": side, "seconds": medians[side], "of_theirs": medians[side] / medians[THEIRS], **worker.end()}
        for side, worker in workers.items()
    ]


def serve(work: Callable[[], Any], **told: Callable[[], Any]) -> None:
    """Life of a worker's process: commands in by lines, answers out by lines of JSON.

    Args:
        work: what is timed; it returns when it is done.
        told: more for the row that is told at the end, by name.
    """
    for command in map(str.strip, sys.stdin):
        if command == "work":
            start = time.perf_counter()
            work()
            answer = {"seconds": time.perf_counter() - start}
        else:
            answer = {"peak_gb": peak_bytes() / 1e9, **{name: tell() for name, tell in told.items()}}
        print(json.dumps(answer), flush=True)


def peak_bytes() -> int:
    """The most memory this process has held, by the system."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
