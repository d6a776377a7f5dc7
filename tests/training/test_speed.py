"""The clock of the steps, on a clock that the tests turn."""

import time

import jax
import jax.numpy as jnp
import pytest

from interlcm_jax.runtime.compiler_options import jit
from interlcm_jax.training.speed import Clock, StepCost, step_cost


@pytest.fixture
def turn(monkeypatch):
    """Turns both of Python's clocks by so many seconds."""
    now = [1e9]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "time", lambda: now[0])

    def turn(seconds: float) -> None:
        now[0] += seconds

    return turn


def test_an_interval_tells_steps_data_and_the_share_of_time_in_steps(turn):
    clock = Clock(0)
    turn(30)  # The first step compiles.
    clock.ended(1)
    for step in range(2, 12):
        with clock.at("data"):
            turn(0.5)
        turn(10.5 if step == 5 else 1.5)
        clock.ended(step)
    with clock.at("validation"):
        turn(60)
    told = clock.interval(None)
    assert told["steps_per_second"] == pytest.approx(10 / 29)
    assert told["step_seconds/p50"] == pytest.approx(2)
    assert told["step_seconds/p95"] == pytest.approx(2 + 9 * 0.55)
    assert told["step_seconds/data"] == pytest.approx(0.5)
    assert told["goodput"] == pytest.approx(29 / (30 + 29 + 60))
    turn(2)
    clock.ended(12)
    assert clock.interval(None)["step_seconds/p95"] == pytest.approx(2)


def test_goodput_goes_on_over_restarts(turn):
    clock = Clock(0)
    for step in range(1, 12):
        turn(1)
        clock.ended(step)
    line = {"step": 11, "time": time.time(), **clock.interval(None)}
    turn(100)  # What came after was lost, and nothing ran for a while.
    later = Clock(22, line)
    assert later.interval(None) == pytest.approx({"goodput": 20 / 111, "seconds/steps": 20, "seconds/run": 111})
    # A run that was killed before its first checkpoint has lost all that it did.
    assert Clock(0, line).interval(None) == pytest.approx({"goodput": 0, "seconds/steps": 0, "seconds/run": 111})


def test_speeds_are_of_all_devices_and_of_one(turn):
    clock = Clock(0)
    for step in (1, 2):
        turn(2)
        clock.ended(step)
    told = clock.interval(StepCost(images=16, devices=4, flops=400e12, peak=197e12))
    assert told["images_per_second"] == 8
    assert told["images_per_second_per_device"] == 2
    assert told["tflops_per_device"] == 50
    assert told["mfu"] == pytest.approx(50 / 197)


def test_without_a_peak_there_is_no_utilization(turn):
    clock = Clock(0)
    for step in (1, 2):
        turn(2)
        clock.ended(step)
    told = clock.interval(StepCost(16, 4, 400e12, None))
    assert told["tflops_per_device"] == 50
    assert told["mfu"] is None


def test_a_program_is_counted_without_being_traced_twice():
    traced = []

    @jit
    def program(x, y):
        traced.append(x)
        return jax.lax.scan(lambda carry, _: (carry @ y, None), x, length=3)[0]

    arguments = jnp.ones((4, 5)), jnp.ones((5, 5))
    cost = step_cost(program, arguments, images=8, devices=2)
    program(*arguments)
    # Three passes, where XLA's own count has one.
    assert cost == StepCost(8, 2, 3 * 2 * 4 * 5 * 5, None)
    assert len(traced) == 1


def test_the_usual_time_of_a_step_is_known_after_some():
    clock = Clock(0)
    for step in range(10):
        clock.ended(step)
    assert clock.usual() is None
    clock.ended(10)
    assert 0 <= clock.usual() < 1
    with clock.at("data"):
        assert clock.now[:2] == (10, "data")
    assert clock.now[:2] == (10, "step")
