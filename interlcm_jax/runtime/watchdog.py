"""Tells which process is late where a step takes far longer than usual: a thread, which costs a step nothing."""

import json
import sys
import threading
import time
from typing import Protocol, Self

from interlcm_jax.runtime import peers

# A step is late that takes so many times the usual, and so many seconds at least.
TIMES, LEAST = 10, 10.0
# Seconds between looks, and those that other processes have to find out too.
POLL, OTHERS = 1.0, 3.0
_WORDS = {"step": "its devices", "data": "data"}


class StepClock(Protocol):
    """What a loop notes as it goes on.

    Attributes:
        now: steps that are done, what the loop waits for ("step" or "data"; anything else may take its time), and
            since when, by `time.monotonic`.
    """

    now: tuple[int, str, float]

    def usual(self) -> float | None:
        """A step's usual seconds; None as long as nobody knows."""


class Watchdog:
    """While the block runs, says on standard error that a step takes ten times the usual, and which process is late.

    A process that waits for the others waits for its devices; the one that is late has done fewer steps, or waits for
    data. Nothing is sent as long as all is well: where a step is late, each process tells the others, through JAX's
    coordination service, where it is.

    Args:
        command: what messages begin with.
        clock: of the loop.
        least: seconds that a late step takes at least.
    """

    def __init__(self, command: str, clock: StepClock, least: float = LEAST):
        self._clock, self._least = clock, least
        self._ended = threading.Event()
        # Of a single process nobody asks which it is.
        self._who = f"{command} ({peers.name()})" if peers.places() else command

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def _watch(self) -> None:
        told: tuple[int, float] | None = None
        while not self._ended.wait(POLL):
            step, what, since = self._clock.now
            if told is not None and step != told[0]:
                self._say(f"step {told[0] + 1} is done after {since - told[1]:.0f} s")
                peers.tell_place(None)
                told = None
            usual = self._clock.usual()
            late = usual is not None and time.monotonic() - since > max(TIMES * usual, self._least)
            if told is None and late and what in _WORDS:
                told = step, since
                peers.tell_place(json.dumps([step, what, peers.name()]))
                if not self._ended.wait(OTHERS):
                    self._tell(step, what, time.monotonic() - since, usual)

    def _tell(self, step: int, what: str, seconds: float, usual: float) -> None:
        own, places = peers.name(), peers.places()
        late = _late(places) if places else [("it", f"waits for {_WORDS[what]}")]
        # One voice is enough, and that of whom it is about.
        if own == peers.name(0) or own in dict(late):
            whom = "; ".join(" ".join(each) for each in late) or "all processes wait for their devices"
            self._say(f"step {step + 1} has taken {seconds:.0f} s, {usual:.3g} s are usual: {whom}")

    def _say(self, text: str) -> None:
        print(f"{self._who}: {text}", file=sys.stderr, flush=True)


def _late(places: dict[int, str]) -> list[tuple[str, str]]:
    """The names of those that the others wait for, and what each does."""
    told = [json.loads(text) for text in places.values() if text]
    late = [(peers.name(index), "says nothing") for index, text in places.items() if not text]
    behind = [(what, name) for step, what, name in told if step == min(step for step, *_ in told)]
    # Of those that are as far, who waits for data keeps the others waiting.
    waiting = [each for each in behind if each[0] == "data"] or (behind if len(behind) < len(told) else [])
    return [(name, f"waits for {_WORDS[what]}") for what, name in waiting] + late
