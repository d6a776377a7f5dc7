"""Which process is late, told by one process with others in its place; two real ones are in test_train_processes.py."""

import json
import time

import pytest

from interlcm_jax.runtime import peers, watchdog
from interlcm_jax.runtime.watchdog import Watchdog


class Loop:
    """A loop that has been at one thing for so many seconds."""

    def __init__(self, step: int, what: str, seconds: float, usual: float | None = 1.0):
        self.now = step, what, time.monotonic() - seconds
        self._usual = usual

    def usual(self) -> float | None:
        return self._usual


@pytest.fixture
def others(monkeypatch):
    """What the processes tell of their places, by number; this one is the first."""
    told: dict[int, str] = {}
    monkeypatch.setattr(watchdog, "POLL", 0.01)
    monkeypatch.setattr(watchdog, "OTHERS", 0.02)
    monkeypatch.setattr(peers, "name", lambda index=0: f"process {index}")
    monkeypatch.setattr(peers, "places", lambda: told)
    monkeypatch.setattr(peers, "tell_place", lambda text: told.update({0: text or ""}) if told else None)
    return told


def place(step: int, what: str, index: int) -> dict[int, str]:
    return {index: json.dumps([step, what, f"process {index} on host {index}"])}


def said(loop: Loop, capsys, wait: float = 0.2) -> str:
    with Watchdog("train", loop):
        time.sleep(wait)
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("places", "late"),
    [
        (place(8, "data", 1) | place(9, "step", 2), "process 1 on host 1 waits for data"),
        (place(8, "step", 1) | place(9, "data", 2), "process 1 on host 1 waits for its devices"),
        (place(9, "data", 1) | place(9, "step", 2), "process 1 on host 1 waits for data"),
        (place(9, "step", 1) | place(9, "step", 2), "all processes wait for their devices"),
        (place(9, "step", 1) | {2: ""}, "process 2 says nothing"),
    ],
)
def test_the_process_that_the_others_wait_for_is_named_once(others, capsys, places, late):
    others.update({0: ""} | places)
    assert said(Loop(9, "step", 30), capsys) == f"train (process 0): step 10 has taken 30 s, 1 s are usual: {late}\n"


def test_who_is_neither_the_first_nor_late_says_nothing(others, capsys, monkeypatch):
    monkeypatch.setattr(peers, "name", lambda index=5: f"process {index}")
    others.update({0: ""} | place(8, "data", 1))
    assert said(Loop(9, "step", 30), capsys) == ""


def test_a_single_process_says_what_it_waits_for_and_when_it_goes_on(others, capsys):
    loop = Loop(9, "data", 30)
    with Watchdog("train", loop):
        time.sleep(0.2)
        loop.now = 10, "step", time.monotonic()
        time.sleep(0.1)
    assert capsys.readouterr().err.splitlines() == [
        "train: step 10 has taken 30 s, 1 s are usual: it waits for data",
        "train: step 10 is done after 30 s",
    ]


@pytest.mark.parametrize("loop", [("step", 9, 0.5), ("step", 30, 5.0), ("step", 30, None), ("validation", 3000, 1.0)])
def test_what_may_take_its_time_is_not_late(others, capsys, loop):
    assert said(Loop(9, *loop), capsys, wait=0.1) == ""
