"""Which process is late, told by one process with others in its place, and by two."""

import json
import os
import re
import socket
import subprocess
import sys
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


LOOP = """
import sys, time
import jax, jax.numpy as jnp, numpy as np
from jax.experimental import multihost_utils
from interlcm_jax.runtime.watchdog import Watchdog
from interlcm_jax.training.speed import Clock

jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
clock = Clock(0)
with Watchdog("train", clock, least=2):
    for step in range(1, 21):
        with clock.at("data"):
            time.sleep(9 if (step, sys.argv[2]) == (16, "1") else 0.05)
        multihost_utils.process_allgather(np.zeros(1))
        clock.ended(step)
    time.sleep(2)
"""


@pytest.mark.long
def test_of_two_processes_the_one_that_waits_for_data_is_named():
    with socket.create_server(("localhost", 0)) as free:
        address = f"localhost:{free.getsockname()[1]}"
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    pipes = {"stderr": subprocess.PIPE, "text": True, "env": environment}
    processes = [subprocess.Popen([sys.executable, "-c", LOOP, address, str(i)], **pipes) for i in range(2)]
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    host = socket.gethostname()
    for index, text in enumerate(said):
        [late, done] = [line for line in text.splitlines() if line.startswith("train ")]
        assert re.fullmatch(
            rf"train \(process {index} of 2 on {host}\): step 16 has taken \d s, \S+ s are usual: "
            rf"process 1 of 2 on {host} waits for data",
            late,
        )
        assert done.startswith(f"train (process {index} of 2 on {host}): step 16 is done after ")
