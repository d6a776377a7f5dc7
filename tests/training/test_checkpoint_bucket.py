"""Checkpoints straight to a bucket: whole or absent, checked when they are read, of one training at a time."""

import jax
import jax.numpy as jnp
import pytest

from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.paths import to_path
from interlcm_jax.training.checkpoint import Checkpoints
from interlcm_jax.training.checkpoint_reader import CheckpointReader, DamagedError
from interlcm_jax.training.run_folder import claimed
from tests.training.test_checkpoint import assert_same, make_state, save, spread, target

FOLDER = "gs://bucket/run/checkpoints"
SMALL = {"ema": {"a": jax.ShapeDtypeStruct((64,), jnp.int32)}}


def small(step):
    return {"ema": {"a": jnp.arange(64, dtype=jnp.int32) + step}}


def test_what_is_saved_is_restored_on_other_devices(bucket):
    with Checkpoints(FOLDER, keep=2) as checkpoints:
        for step in (1, 2, 3):
            save(checkpoints, step)
        assert checkpoints.steps() == [2, 3]
    # What makes a checkpoint whole comes last.
    assert [name for name in bucket.written if name.startswith("run/checkpoints/3/")][-1].endswith(
        "/commit_success.txt"
    )
    state = make_state(3)
    with CheckpointReader(FOLDER) as reader:
        restored = reader.restore(target(state, 4))
        assert_same(restored.state, state)
        assert (restored.step, restored.position) == (3, 30)
        assert jax.tree.leaves(restored.state)[-1].sharding == jax.tree.leaves(spread(state, 4))[-1]


def test_one_that_is_not_whole_is_no_checkpoint_and_a_damaged_one_is_passed_over_on_request(bucket, capsys):
    with Checkpoints(FOLDER) as checkpoints:
        for step in (1, 2, 3):
            save(checkpoints, step, small(step))
    # As a killed training leaves it.
    bucket.delete("run/checkpoints/3/commit_success.txt")
    damaged = max(bucket.names("run/checkpoints/2/state/d/"), key=lambda name: len(bucket.objects[name]))
    bucket.put(damaged, bucket.objects[damaged][:-8] + bytes(8))
    with Checkpoints(FOLDER) as checkpoints:
        assert checkpoints.steps() == [1, 2]
        with pytest.raises(DamagedError, match=f"^{FOLDER}/2: the checkpoint can't be read"):
            checkpoints.restore(SMALL)
        restored = checkpoints.restore_newest(SMALL, fall_back=True)
        assert (restored.step, restored.state["ema"]["a"][0]) == (1, 1)
        save(checkpoints, 3, small(3))
        assert checkpoints.restore(SMALL).step == 3
    assert "this one is moved to damaged/" in capsys.readouterr().err
    assert any(name.startswith("run/damaged/2-") for name in bucket.names())


def test_the_newest_training_in_a_folder_takes_it_over(bucket):
    with claimed(to_path("gs://bucket/run")), Checkpoints(FOLDER) as checkpoints:
        save(checkpoints, 1, small(1))
        bucket.put("run/.owner", b"another elsewhere")
        with pytest.raises(InterLCMError, match="run: another training has begun in this folder, on elsewhere"):
            save(checkpoints, 2, small(2))
        assert checkpoints.steps() == [1]


def test_a_run_in_s3_is_refused():
    with pytest.raises(InterLCMError, match="s3://bucket/run: Orbax keeps checkpoints on disks and in gs:// alone"):
        Checkpoints("s3://bucket/run")


def test_a_bucket_that_stays_away_ends_the_save_in_a_sentence(bucket):
    with Checkpoints(FOLDER) as checkpoints:
        save(checkpoints, 1, small(1))
        bucket.down = True
        with pytest.raises(InterLCMError, match=r"step 2 can't be saved .no answer in 1 s .*; earlier ones are whole"):
            save(checkpoints, 2, small(2))
        bucket.down = False
    with CheckpointReader(FOLDER) as reader:
        assert reader.restore(SMALL).step == 1
