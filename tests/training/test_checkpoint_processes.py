"""Checkpoints and signals in real processes: one that is killed as it saves, and two that train as one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interlcm_jax.training.checkpoint import Checkpoints
from interlcm_jax.training.checkpoint_reader import CheckpointReader

SIZE = 2**22
SAVES_ON_AND_ON = f"""
import sys
import jax, jax.numpy as jnp
from interlcm_jax.training.checkpoint import Checkpoints
from interlcm_jax.training.checkpoint_reader import CheckpointReader

noise = jax.random.normal(jax.random.key(0), {SIZE})
with Checkpoints(sys.argv[1]) as checkpoints:
    for step in range(1, 10_000):
        state = {{"step": jnp.int32(step), "noise": noise + jnp.float32(step)}}
        checkpoints.save(step, state, config={{}}, position=step)
        checkpoints.wait()
"""

TRAINS = """
import json, os, sys, time
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from interlcm_jax.training.checkpoint import Checkpoints
from interlcm_jax.training.checkpoint_reader import CheckpointReader
from interlcm_jax.training.interrupt import Interrupt

folder, address, index = sys.argv[1], sys.argv[2], int(sys.argv[3])
jax.distributed.initialize(address, 2, index)
assert jax.device_count() == 4 and jax.local_device_count() == 2
sharding = NamedSharding(Mesh(np.array(jax.devices()), ("fsdp",)), PartitionSpec("fsdp"))
array = jax.make_array_from_process_local_data(sharding, np.arange(4.0, dtype=np.float32) + 4 * index)
target = {"array": jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)}
update = jax.jit(lambda array: array + array.mean() - array.mean() + jnp.float32(1), donate_argnums=0)
with Checkpoints(folder, keep=1) as checkpoints, Interrupt() as interrupt:
    if checkpoints.latest() is not None:
        restored = checkpoints.restore(target)
        shards = {shard.index[0].start: shard.data.tolist() for shard in restored.state["array"].addressable_shards}
        print(json.dumps({"step": restored.step, "shards": shards}), flush=True)
        sys.exit()
    step = 0
    while not interrupt.requested():
        array = update(array)
        step += 1
        if step % 20 == 0:
            checkpoints.save(step, {"array": array}, config={}, position=step)
        if step == 30:
            print("under way", flush=True)
        time.sleep(0.01 * index)  # One process is slower, so that they are seldom at the same step.
    checkpoints.save(step, {"array": array}, config={}, position=step)
print(json.dumps({"step": step}), flush=True)
"""


@pytest.fixture
def start():
    """Starts a program; none outlives its test."""
    processes = []

    def start(program, *arguments, devices=1):
        environment = {
            **os.environ,
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        }
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command = [sys.executable, "-c", program, *map(str, arguments)]
        processes.append(subprocess.Popen(command, env=environment, **pipes))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def finish(process):
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return json.loads(out.splitlines()[-1])


def stopped_while_saving(process, folder):
    """Waits for the process to be in a save, past its first, and stops it there."""
    while process.poll() is None:
        if len(list(folder.glob("[0-9]*"))) > 1 and any(folder.glob("*-tmp")):
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            if any(folder.glob("*-tmp/state*/ocdbt*")):
                return
            process.send_signal(signal.SIGCONT)
        time.sleep(0.001)
    raise AssertionError(process.stderr.read())


def test_what_a_save_leaves_that_was_killed_is_passed_over(start, tmp_path):
    process = start(SAVES_ON_AND_ON, tmp_path)
    stopped_while_saving(process, tmp_path)
    process.kill()
    assert process.communicate(timeout=60) == ("", "")
    [left] = tmp_path.glob("*-tmp")
    killed = int(left.name.split(".")[0])

    assert CheckpointReader(tmp_path).latest() == killed - 1
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() == killed - 1
        shapes = {"step": jax.ShapeDtypeStruct((), jnp.int32), "noise": jax.ShapeDtypeStruct((SIZE,), jnp.float32)}
        restored = checkpoints.restore(shapes)
        assert restored.state["step"] == restored.position == killed - 1
        noise = jax.random.normal(jax.random.key(0), SIZE) + jnp.float32(killed - 1)
        np.testing.assert_array_equal(restored.state["noise"], noise)
        checkpoints.save(killed + 1, {"step": jnp.int32(9)}, config={}, position=9)
        checkpoints.wait()
        assert checkpoints.restore({"step": shapes["step"]}).state["step"] == 9
    assert not list(tmp_path.glob("*-tmp"))


def both(start, folder):
    with socket.create_server(("localhost", 0)) as free:
        address = f"localhost:{free.getsockname()[1]}"
    return [start(TRAINS, folder, address, index, devices=2) for index in range(2)]


@pytest.mark.parametrize(("signalled", "number"), [(0, signal.SIGTERM), (1, signal.SIGINT)])
def test_two_processes_stop_at_one_step_and_go_on_from_it(start, tmp_path, signalled, number):
    processes = both(start, tmp_path)
    for process in processes:
        assert "under way\n" in process.stdout, process.stderr.read()
    processes[signalled].send_signal(number)
    step, other = [finish(process)["step"] for process in processes]
    assert step == other
    assert step >= 30

    halves = [finish(process) for process in both(start, tmp_path)]
    assert [half["step"] for half in halves] == [step, step]
    wanted = {str(first): [first + step, first + step + 1.0] for first in (0, 2, 4, 6)}
    assert [len(half["shards"]) for half in halves] == [2, 2]
    assert halves[0]["shards"] | halves[1]["shards"] == wanted
    [alone] = CheckpointReader(tmp_path).restore({"array": jax.ShapeDtypeStruct((8,), jnp.float32)}).state.values()
    np.testing.assert_array_equal(alone, np.arange(8) + step)
