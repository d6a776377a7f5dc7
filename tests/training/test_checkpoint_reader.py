"""Damaged arrays are found by whoever reads them, and a run falls back where it is asked to."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interlcm_jax.training.checkpoint import Checkpoints
from interlcm_jax.training.checkpoint_reader import CheckpointReader, DamagedError
from tests.training.test_checkpoint import save


def flip(path, count=64):
    """Flips bits in the middle of a file, as a bad disk does."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + count] = bytes(byte ^ 0x10 for byte in content[middle : middle + count])
    path.write_bytes(content)


@pytest.fixture
def flipped(tmp_path):
    """Checkpoints of steps 1 to 3, of which the last has a few bits flipped in an array's values."""
    random = np.random.default_rng(0)
    with Checkpoints(tmp_path / "run") as checkpoints:
        for step in (1, 2, 3):
            save(checkpoints, step, {"ema": {"a": jnp.asarray(random.integers(0, 2**31, 2**16), jnp.int32) + step}})
    flip(max((tmp_path / "run" / "3").rglob("d/*"), key=lambda path: path.stat().st_size))
    return tmp_path / "run"


VALUES = {"ema": {"a": jax.ShapeDtypeStruct((2**16,), jnp.int32)}}


def test_flipped_bits_are_found_by_all_that_read_them(flipped):
    says = "run/3: the checkpoint can't be read .*ema/a"
    with pytest.raises(DamagedError, match=says):
        Checkpoints(flipped).restore(VALUES)
    with pytest.raises(DamagedError, match=says):
        CheckpointReader(flipped).read("ema")
    assert Checkpoints(flipped).restore(VALUES, 2).step == 2


def test_a_run_falls_back_where_it_is_asked_to(flipped, capsys):
    with Checkpoints(flipped) as checkpoints:
        with pytest.raises(DamagedError, match="run/3"):
            checkpoints.restore_newest(VALUES)
        assert checkpoints.restore_newest(VALUES, fall_back=True).step == 2
        said = capsys.readouterr().err
        assert "run/3: the checkpoint can't be read" in said
        # The run comes by this step again, and its checkpoint takes the damaged one's place.
        assert checkpoints.steps() == [1, 2]
        [aside] = (flipped.parent / "damaged").iterdir()
        assert (aside / "state").is_dir()
        save(checkpoints, 3, {"ema": {"a": jnp.arange(2**16)}})
        assert checkpoints.restore_newest(VALUES, fall_back=True).step == 3


def test_the_last_checkpoint_is_never_set_aside(flipped):
    for step in (1, 2):
        shutil.rmtree(flipped / str(step))
    with pytest.raises(DamagedError, match="run/3"):
        Checkpoints(flipped).restore_newest(VALUES, fall_back=True)
    assert (flipped / "3").is_dir()
