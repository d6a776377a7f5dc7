"""What changed since a run's checkpoint: told by the fields' names, and refused where it breaks a promise."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interlcm_jax.data.sources import identity, open_source
from interlcm_jax.errors import InterLCMError
from interlcm_jax.training.checkpoint import Checkpoints
from interlcm_jax.training.config import OptimizerConfig, RunConfig, StartConfig, TrainConfig
from interlcm_jax.training.going_on import GoingOn, changes
from interlcm_jax.training.state import make_optimizer
from tests.data.faces import write_faces

CONFIG = TrainConfig(start=StartConfig(random="miniature"))
TARGET = {"weight": jax.ShapeDtypeStruct((3,), jnp.float32)}


def saved(config=CONFIG, calls=3, records="24 of 1a2b3c4d"):
    return {"train": config.to_json(), "model": {"num_network_calls": calls}, "records": records}


@pytest.fixture
def checkpoints(tmp_path):
    with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        checkpoints.save(5, {"weight": jnp.ones(3)}, config=saved(), position=5)
        checkpoints.wait()
        yield checkpoints


def changed(**fields):
    return saved(dataclasses.replace(CONFIG, **fields))


def test_changes_are_told_by_the_names_of_fields(checkpoints, capsys):
    today = changed(optimizer=OptimizerConfig(learning_rate=1e-3, clip_norm=1.0), batch_size=8, dtype="float32")
    assert GoingOn().restore(TARGET, checkpoints, today).position == 5
    said = capsys.readouterr().err
    assert said.startswith("changed since step 5: ")
    for words in (
        "learning_rate is 0.001, and was 5e-05",
        "clip_norm is 1.0, and was None",
        "batch_size is 8, and was",
    ):
        assert words in said


def test_where_nothing_changed_nothing_is_said(checkpoints, capsys):
    for today in (saved(), changed(run=RunConfig(folder="elsewhere"))):
        GoingOn().restore(TARGET, checkpoints, today)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("today", "words"),
    [
        (changed(seed=1), "seed is 1, and was 0"),
        (saved(records="25 of 99999999"), "data.records is 25 of 99999999, and was 24 of 1a2b3c4d"),
        (saved(calls=1), "model.num_network_calls is 1, and was 3"),
    ],
)
def test_a_broken_promise_is_refused_unless_it_is_asked_for(checkpoints, tmp_path, today, words):
    with pytest.raises(InterLCMError, match=words):
        GoingOn().restore(TARGET, checkpoints, today)
    assert GoingOn(allow_changes=True).restore(TARGET, checkpoints, today).step == 5
    # A new run that starts from another's checkpoint has promised nothing yet.
    with Checkpoints(tmp_path / "new" / "checkpoints") as none:
        assert GoingOn(resume=tmp_path / "run").restore(TARGET, none, today).step == 5
        assert GoingOn().restore(TARGET, none, today) is None


def test_what_another_version_saved_is_compared_as_far_as_it_goes():
    old = json.loads(json.dumps({"train": {"seed": 0, "steps": 7, "gone": 1}, "model": {}}))
    assert changes(old, changed(steps=9)).keys() == {"steps"}


def test_a_source_is_known_by_its_records_and_not_by_its_place(tmp_path):
    for name in ("here", "there"):
        write_faces(tmp_path / name, 3)
    here, there = (open_source(tmp_path / name, 64) for name in ("here", "there"))
    assert identity(here) == identity(there)
    min((tmp_path / "there").iterdir()).rename(tmp_path / "there" / "zz.png")
    assert identity(open_source(tmp_path / "there", 64)) != identity(here)


def test_clipping_has_no_part_in_the_optimizers_state():
    params = {"a": jnp.ones(3), "b": jnp.zeros((2, 2))}
    plain, clipped = (make_optimizer(OptimizerConfig(clip_norm=norm)) for norm in (None, 1.0))
    state = plain.init(params)
    assert jax.tree.structure(clipped.init(params)) == jax.tree.structure(state)
    grads = jax.tree.map(lambda weight: jnp.full_like(weight, 30.0), params)
    with jax.numpy_dtype_promotion("standard"):
        _, moved = jax.jit(clipped.update)(grads, state, params)
    assert jax.tree.structure(moved) == jax.tree.structure(state)
    # The first moments are the clipped gradients, whose norm is the one asked for, times 1 - b1.
    norm = np.sqrt(sum(np.sum(np.square(np.asarray(leaf))) for leaf in jax.tree.leaves(moved[0].mu)))
    assert norm == pytest.approx(1 - OptimizerConfig().b1, rel=1e-5)
