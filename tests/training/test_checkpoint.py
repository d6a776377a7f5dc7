"""Checkpoints in one process: what is saved is restored bit by bit, anywhere, or an error says why not."""

import contextlib
import dataclasses
import gc
import resource
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from interlcm_jax.errors import InterLCMError
from interlcm_jax.training.checkpoint import Checkpoints
from interlcm_jax.training.checkpoint_reader import CheckpointReader

CONFIG = {"seed": 3, "data": {"folders": ["a", "b"], "size": None}}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """All kinds of nodes and dtypes that a training state may have."""

    step: Any
    params: Any
    optimizer: Any
    network: Any


def spread(state, devices):
    """Shardings that split every array whose first axis divides; the others are on each device."""
    mesh = Mesh(np.array(jax.devices()[:devices]), ("fsdp",))
    spec = lambda leaf: PartitionSpec("fsdp") if leaf.ndim and leaf.shape[0] % devices == 0 else PartitionSpec()  # noqa: E731
    return jax.tree.map(lambda leaf: NamedSharding(mesh, spec(leaf)), state)


def make_state(seed=0):
    """A state of random numbers on all eight devices."""
    random = np.random.default_rng(seed)
    params = {
        "encoder.conv.kernel": jnp.asarray(random.normal(size=(16, 3)), jnp.float32),
        "encoder.conv.bias": jnp.asarray(random.normal(size=3), jnp.bfloat16),
    }
    network = nnx.state(nnx.Linear(8, 4, rngs=nnx.Rngs(seed)))
    state = State(jnp.int32(seed), params, optax.adam(optax.constant_schedule(0.1)).init(params), network)
    return jax.device_put(state, spread(state, 8))


def target(state, devices=8):
    place = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)  # noqa: E731
    return jax.tree.map(place, state, spread(state, devices))


def save(checkpoints, step, state=None, **options):
    checkpoints.save(step, make_state(step) if state is None else state, config=CONFIG, position=10 * step, **options)
    checkpoints.wait()


def assert_same(restored, state):
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    for new, old in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
        assert new.dtype == old.dtype
        assert np.asarray(new).tobytes() == np.asarray(old).tobytes()


@pytest.fixture
def saved(tmp_path):
    """A folder with checkpoints of steps 1 and 2."""
    with Checkpoints(tmp_path / "run") as checkpoints:
        save(checkpoints, 1)
        save(checkpoints, 2)
    return tmp_path / "run"


@pytest.mark.parametrize("devices", [8, 2, 1])
def test_a_state_of_eight_devices_is_restored_on_fewer(saved, devices):
    state = make_state(2)
    assert len(state.params["encoder.conv.kernel"].sharding.device_set) == 8
    wanted = target(state, devices)
    restored = Checkpoints(saved).restore(wanted)
    assert_same(restored.state, state)
    for array, spec in zip(jax.tree.leaves(restored.state), jax.tree.leaves(wanted), strict=True):
        assert array.sharding == spec.sharding
    assert restored.state.params["encoder.conv.kernel"].addressable_shards[0].data.shape == (16 // devices, 3)
    assert (restored.config, restored.position, restored.step) == (CONFIG, 20, 2)
    assert_same(Checkpoints(saved).restore(wanted, 1).state, make_state(1))


def test_arrays_are_written_in_the_shards_they_lie_in(saved):
    [kernel] = [leaf for path, leaf in Checkpoints(saved)._saved(2).items() if path == "params/encoder.conv.kernel"]
    assert kernel.storage.write_shape == (2, 3)


def test_a_saved_state_may_be_donated_at_once(tmp_path):
    state = jax.device_put(jnp.asarray(np.random.default_rng(0).normal(size=2**20), jnp.float32))
    before = np.array(state)
    overwrite = jax.jit(lambda array: array + np.float32(1), donate_argnums=0).lower(state).compile()
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"array": state}, config={}, position=0)
        jax.block_until_ready(overwrite(state))
        checkpoints.wait()
        restored = checkpoints.restore({"array": jax.ShapeDtypeStruct(before.shape, before.dtype)})
    np.testing.assert_array_equal(restored.state["array"], before)


def test_a_part_is_read_without_the_rest(saved):
    checkpoints = CheckpointReader(saved)
    part = checkpoints.read("params", 1)
    assert part.keys() == {"encoder.conv.kernel", "encoder.conv.bias"}
    assert part["encoder.conv.bias"].dtype == ml_dtypes.bfloat16
    for path, array in part.items():
        assert isinstance(array, np.ndarray)
        np.testing.assert_array_equal(array, make_state(1).params[path])
    assert checkpoints.read_config(1) == CONFIG
    with pytest.raises(InterLCMError, match="no part 'ema'; it has network, optimizer, params, step"):
        checkpoints.read("ema")


def bytes_read():
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="only Linux counts what a process reads")
def test_of_the_rest_no_data_are_read(tmp_path):
    rest = np.random.default_rng(0).normal(size=2**21)
    with Checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 1, {"ema": {"a": rest[:10]}, "rest": rest})
    before = bytes_read()
    CheckpointReader(tmp_path).read("ema")
    assert bytes_read() - before < rest.nbytes / 4


def test_opening_to_read_changes_nothing(saved):
    (saved / "3.orbax-checkpoint-tmp").mkdir()
    before = sorted(saved.rglob("*"))
    checkpoints = CheckpointReader(saved)
    checkpoints.restore(target(make_state()))
    assert checkpoints.steps() == [1, 2]
    assert sorted(saved.rglob("*")) == before


def test_the_newest_and_the_best_are_kept(tmp_path):
    scores = {1: 20.0, 2: 29.0, 3: 11.0, 4: 25.0, 5: None, 6: float("nan"), 7: 24.0}
    with Checkpoints(tmp_path, keep=2, best="psnr") as checkpoints:
        assert (checkpoints.latest(), checkpoints.best()) == (None, None)
        for step, score in scores.items():
            save(checkpoints, step, metrics=None if score is None else {"psnr": score, "loss": 1.0})
    for again in (Checkpoints(tmp_path, keep=2, best="psnr"), CheckpointReader(tmp_path, best="psnr")):
        assert (again.steps(), again.latest(), again.best()) == ([2, 6, 7], 7, 2)
        assert_same(again.restore(target(make_state()), 2).state, make_state(2))


def test_a_saved_step_is_left_as_it_is(saved):
    with Checkpoints(saved) as checkpoints:
        save(checkpoints, 2, make_state(9))
        assert_same(checkpoints.restore(target(make_state())).state, make_state(2))


@contextlib.contextmanager
def full_disk():
    """Files may not grow: writing fails as on a full disk, but for the error's name."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("raised_by", ["wait", "save", "close"])
def test_a_full_disk_leaves_the_earlier_checkpoints(tmp_path, capfd, caplog, raised_by):
    random = np.random.default_rng(0)
    states = [{"params": {name: random.normal(size=2**16) for name in "abc"}} for _ in range(2)]
    checkpoints = Checkpoints(tmp_path, keep=1)
    save(checkpoints, 1, states[0])
    with full_disk():
        checkpoints.save(2, states[1], config=CONFIG, position=0)
        with pytest.raises(InterLCMError, match=r"the checkpoint of step 2 can't be saved \(File too large\)") as error:
            save(checkpoints, 3, states[1]) if raised_by == "save" else getattr(checkpoints, raised_by)()
    assert str(tmp_path) in str(error.value)
    assert "goes on from step 1" in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    with Checkpoints(tmp_path, keep=1) if raised_by == "close" else checkpoints as again:
        assert again.read_config() == CONFIG
        assert again.read("params")["a"].tobytes() == states[0]["params"]["a"].tobytes()
        save(again, 2, states[1])
        assert again.read("params")["a"].tobytes() == states[1]["params"]["a"].tobytes()
        assert again.steps() == [2]
    gc.collect()  # Errors that nobody asked for are logged when they are freed.
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_another_architecture_is_told_by_every_path(saved):
    shutil.rmtree(saved / "2" / "state" / "ocdbt.process_0")
    state = make_state()
    params = {
        "encoder.conv.kernel": jax.ShapeDtypeStruct((16, 5), jnp.float32),
        "encoder.conv.bias": jax.ShapeDtypeStruct((3,), jnp.float32),
        "encoder.more.bias": jax.ShapeDtypeStruct((3,), jnp.float32),
        "encoder.more.kernel": jax.ShapeDtypeStruct((3,), jnp.float32),
    }
    wanted = dataclasses.replace(target(state), params=params, optimizer=())
    with pytest.raises(InterLCMError) as error:
        Checkpoints(saved).restore(wanted)
    lines = str(error.value).splitlines()
    assert lines[:2] == [f"{saved / '2'}:", "  2 missing: params/encoder.more.bias, params/encoder.more.kernel"]
    assert lines[2].startswith("  6 unexpected: optimizer/0/count, optimizer/0/mu/encoder.conv.bias")
    assert lines[3:5] == [
        "  1 mis-shaped: params/encoder.conv.kernel (16, 3) instead of (16, 5)",
        "  1 of another dtype: params/encoder.conv.bias bfloat16 instead of float32",
    ]


def test_a_folder_without_checkpoints_says_so(saved, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    wanted = target(make_state())
    for name, says in [("absent", "no such folder"), ("empty", "no checkpoint in it"), ("file", "it is a file")]:
        with pytest.raises(InterLCMError, match=f"{name}: .*{says}"):
            CheckpointReader(tmp_path / name)
    assert not (tmp_path / "absent").exists()
    with pytest.raises(InterLCMError, match="no checkpoint in it; name the folder of checkpoints"):
        Checkpoints(tmp_path / "empty").restore(wanted)
    with pytest.raises(InterLCMError, match="has no checkpoint of step 7; it has 1, 2"):
        Checkpoints(saved).restore(wanted, 7)


@pytest.mark.parametrize("how", ["cut", "flipped", "gone"])
@pytest.mark.parametrize("file", ["state/_METADATA", "state/manifest.ocdbt", "state/d/*", "run/metadata"])
def test_a_damaged_checkpoint_is_told_and_the_earlier_one_serves(saved, file, how, capfd):
    [path] = (saved / "2").glob(file)
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(
        content[:middle] + (b"" if how == "cut" else bytes([content[middle] ^ 255]) + content[middle + 1 :])
    )
    if how == "gone":
        path.unlink()
    checkpoints, wanted = Checkpoints(saved), target(make_state())
    with pytest.raises(InterLCMError, match=r"run/2: the checkpoint can't be read .*--fall-back"):
        checkpoints.restore(wanted)
    shutil.rmtree(saved / "2")
    assert_same(Checkpoints(saved).restore(wanted).state, make_state(1))
    assert capfd.readouterr() == ("", "")
