import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from interlcm_jax.training import profile
from interlcm_jax.training.profile import ProfileSteps, device_memory

STATUS = Path("/proc/self/status")


def run(steps: ProfileSteps, first: int, last: int) -> list[int]:
    """Runs steps, and returns those within a trace, by whether JAX refuses to start another one."""
    traced, metrics = [], None
    with steps as profiled:
        for step in range(first, last + 1):
            with profiled.step(step, metrics):
                metrics = {"loss": jnp.float32(step) + 1}
                if steps._tracing:
                    with pytest.raises(RuntimeError, match="Only one profile"):
                        jax.profiler.start_trace("never made")
                    traced.append(step)
    return traced


def test_a_trace_of_the_steps_asked_for_is_written(tmp_path):
    folder = tmp_path / "profile"
    assert run(ProfileSteps(folder, first=3, count=2), 1, 7) == [3, 4]
    assert len(list(folder.rglob("*.xplane.pb"))) == 1


def test_steps_are_waited_for_at_the_ends_of_the_trace_alone(tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(jax, "block_until_ready", lambda metrics: waited.append(float(metrics["loss"]) - 1))
    run(ProfileSteps(tmp_path, first=3, count=2), 1, 9)
    assert waited == [2, 4]


def test_a_run_that_ends_or_starts_within_the_trace_writes_what_it_has(tmp_path):
    assert run(ProfileSteps(tmp_path / "ended", first=2, count=5), 1, 3) == [2, 3]
    assert len(list((tmp_path / "ended").rglob("*.xplane.pb"))) == 1


@pytest.mark.parametrize("case", ["not asked for", "resumed behind it", "another process"])
def test_no_trace(tmp_path, monkeypatch, case):
    if case == "another process":
        monkeypatch.setattr(jax, "process_index", lambda: 1)
    steps = ProfileSteps(tmp_path / "profile", first=None if case == "not asked for" else 3, count=2)
    assert run(steps, 5 if case == "resumed behind it" else 1, 7) == []
    assert not (tmp_path / "profile").exists()


def test_memory_is_the_devices_where_it_tells(monkeypatch):
    class Device:
        def memory_stats(self):
            return {"bytes_in_use": 2**30, "peak_bytes_in_use": 3 * 2**30, "bytes_limit": 2**40}

    monkeypatch.setattr(profile.jax, "local_devices", lambda: [Device()])
    assert device_memory() == {"memory/device": 1, "memory/device_peak": 3}


@pytest.mark.skipif(not STATUS.exists(), reason="only Linux tells it in this file too")
def test_memory_is_the_processs_elsewhere():
    told = device_memory()["memory/process_peak"] * 2**20
    in_kib = int(re.search(r"VmHWM:\s*(\d+) kB", STATUS.read_text())[1])
    assert told == pytest.approx(in_kib, rel=0.02)
