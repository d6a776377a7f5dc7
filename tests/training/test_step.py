"""The step apart from PyTorch: the same on any mesh, in parts, recomputed; who is trained when; what lies where."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.models.discriminator import DiscriminatorConfig
from interlcm_jax.training import sharding
from interlcm_jax.training.config import MeshConfig, OptimizerConfig, StartConfig, TrainConfig
from interlcm_jax.training.losses import Judges, LossConfig
from interlcm_jax.training.sharding import make_mesh, put_batch
from interlcm_jax.training.stages import Restoration
from interlcm_jax.training.start import abstract_discriminator, abstract_networks
from interlcm_jax.training.state import (
    TrainState,
    abstract_state,
    discriminator_weights,
    initial_state,
    split_weights,
    state_shardings,
)
from interlcm_jax.training.step import Gradients, accumulated, make_step
from tests.miniature import miniature_model
from tests.models.random_weights import fill_randomly

MODEL = ModelConfig.miniature()
BATCH = 8
PARTS = 4  # of accumulation; no other loop of the step is as long
LOSSES = LossConfig(adversarial_from=1, lpips=0.0, discriminator=DiscriminatorConfig.miniature())
CONFIG = TrainConfig(
    stage=Restoration(losses=LOSSES),
    start=StartConfig(random="miniature"),
    optimizer=OptimizerConfig(learning_rate=1e-3, final_learning_rate=1e-4, decay_steps=10),
    dtype="float32",
    remat=False,
    batch_size=BATCH,
)
WITHOUT = dataclasses.replace(CONFIG, stage=Restoration(losses=dataclasses.replace(LOSSES, adversarial=0.0)))
SAME = 1e-4  # relative, between meshes: sums in another order
# Of the norm of all changes: Adam turns a gradient that is rounding alone, of single elements, into a whole step.
CHANGE = 1e-2


@pytest.fixture(scope="module")
def judge():
    return fill_randomly(abstract_discriminator(CONFIG))


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 256, (BATCH, 64, 64, 3), np.uint8) for name in ("lq", "hq")}


@pytest.fixture(scope="module")
def begin(judge):
    """The state before the first step, which is the same of every configuration."""
    return initial_state(split_weights(miniature_model().networks)[0], discriminator_weights(judge), CONFIG.optimizer)


@pytest.fixture(scope="module")
def steps(judge, batch, begin):
    """(state after two steps, metrics of both) of a configuration; each is run once."""

    @functools.cache
    def run(config: TrainConfig = CONFIG, devices: int = 1, fsdp: int = 1):
        frozen = split_weights(miniature_model().networks)[1]
        mesh = make_mesh(MeshConfig(fsdp=fsdp), jax.devices()[:devices])
        placed = state_shardings(begin, mesh)
        with jax.set_mesh(mesh):
            state = jax.device_put(begin, placed)
            frozen = jax.device_put(frozen, sharding.weight_shardings(frozen, mesh))
            step = make_step(config, MODEL, abstract_networks(config, MODEL), judge)
            program = jax.jit(step, out_shardings=(placed, None))
            told = []
            for _ in range(2):
                state, metrics = program(state, frozen, Judges(), put_batch(batch, mesh))
                told.append({name: float(value) for name, value in metrics.items()})
        return state, told

    return run


def assert_same(ours: tuple[TrainState, list], reference: tuple[TrainState, list], begin: TrainState) -> None:
    """Metrics, moments and statistics; and of weights and averages, what the steps changed."""
    for mine, theirs in zip(ours[1], reference[1], strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in theirs.items():
            assert mine[name] == pytest.approx(value, rel=SAME, abs=1e-6), name
    state, wanted = ours[0], reference[0]
    for kind in ("optimizer", "discriminator_optimizer"):
        for mine, theirs in zip(moments(getattr(state, kind)), moments(getattr(wanted, kind)), strict=True):
            assert_near(mine, theirs, {path: jnp.zeros_like(x) for path, x in theirs.items()}, 1e-3)
    for path, value in wanted.statistics.items():
        np.testing.assert_allclose(state.statistics[path], value, rtol=1e-3, atol=1e-5, err_msg=path)
    for kind in ("params", "ema", "discriminator"):
        assert_near(getattr(state, kind), getattr(wanted, kind), getattr(begin, kind), CHANGE)
    assert [int(x) for x in counts(state)] == [int(x) for x in counts(wanted)]


def assert_near(ours: dict, reference: dict, before: dict, tolerance: float) -> None:
    """Of all weights together, by the norm of what changed."""
    assert ours.keys() == reference.keys() == before.keys()
    flat = [
        np.concatenate([np.asarray(x[path], np.float64).ravel() for path in sorted(before)])
        for x in (ours, reference, before)
    ]
    assert np.linalg.norm(flat[0] - flat[1]) <= tolerance * np.linalg.norm(flat[1] - flat[2])


def moments(optimizer) -> list[dict]:
    return [found for part in optimizer for found in part if isinstance(found, dict)]


def counts(state: TrainState) -> list:
    return [state.step, *(x for x in jax.tree.leaves((state.optimizer, state.discriminator_optimizer)) if x.ndim == 0)]


def test_eight_devices_give_what_one_gives(steps, begin):
    assert_same(steps(devices=8, fsdp=2), steps(), begin)


def test_what_each_device_holds(steps):
    """Half of every large weight, of its moments and of its average; all of the small ones."""
    state, _ = steps(devices=8, fsdp=2)
    large = 0
    for weights in (state.params, state.ema, *moments(state.optimizer)):
        for path, array in weights.items():
            share = array.addressable_shards[0].data.size / array.size
            split = array.size >= sharding.MIN_ELEMENTS and path.endswith("kernel")
            assert share == (0.5 if split else 1), path
            large += split
    assert large > 20


def test_accumulated_parts_are_every_nth_image_and_their_means_are_returned():
    """Statistics go from part to part."""

    def gradients(statistics, images):
        moved = {"mean": statistics["mean"] * 2 + images["hq"].sum()}
        return Gradients({"weight": 10 * images["hq"].mean()}, None, moved, {"loss": images["hq"].max()})

    run = jax.jit(accumulated(gradients, 2))
    found = run({"mean": jnp.float32(1)}, {"hq": jnp.asarray([1.0, 20.0, 3.0, 40.0])})
    assert float(found.params["weight"]) == pytest.approx(10 * (2 + 30) / 2)
    assert float(found.metrics["loss"]) == pytest.approx((3 + 40) / 2)
    assert float(found.statistics["mean"]) == (1 * 2 + 4) * 2 + 60


def traced(config: TrainConfig, batch, parts: int = 1):
    """The step's program, its state before it, and shapes of (the state after it, metrics)."""
    config = dataclasses.replace(config, accumulate=parts)
    networks, judge = abstract_networks(config, MODEL), abstract_discriminator(config)
    state = abstract_state(networks, judge, config.optimizer, make_mesh(MeshConfig()))
    step = make_step(config, MODEL, networks, judge)
    program, results = jax.make_jaxpr(step, return_shape=True)(state, split_weights(networks)[1], Judges(), batch)
    return program, state, results


@pytest.mark.parametrize("config", [CONFIG, WITHOUT], ids=["adversary", "alone"])
def test_accumulation_is_the_configurations(config, batch):
    """Traced alone: the parts' loop is in the program, and what comes out is a state as before."""
    program, state, (new, _) = traced(config, batch, PARTS)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), new) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert PARTS in [eqn.params["length"] for eqn in program.eqns if eqn.primitive.name == "scan"]


@pytest.mark.long
def test_recomputing_changes_nothing(steps, begin):
    stage = dataclasses.replace(CONFIG.stage, remat_calls=True)
    assert_same(steps(dataclasses.replace(CONFIG, remat=True, stage=stage)), steps(), begin)


@pytest.mark.long
def test_batch_norm_sees_the_global_batch_or_single_images(steps):
    losses = dataclasses.replace(LOSSES, batch_norm="image")
    single = dataclasses.replace(CONFIG, stage=Restoration(losses=losses))
    assert steps(single)[1][0]["loss/discriminator"] != pytest.approx(steps()[1][0]["loss/discriminator"], rel=1e-4)


def test_the_discriminator_waits_for_its_step(steps):
    """Before it neither it nor its statistics move, and its verdict costs nothing."""
    state, told = steps()
    assert told[0]["grad_norm/discriminator"] == 0 < told[1]["grad_norm/discriminator"]
    assert told[0]["loss"] == pytest.approx(told[0]["loss/l1"])
    assert told[1]["loss"] != pytest.approx(told[1]["loss/l1"], rel=1e-3)
    assert [int(count) for count in counts(state)] == [2, 2, 1]


def test_without_its_weight_there_is_no_discriminator(batch):
    """Neither state nor numbers of it, nor any work."""
    (program, state, (_, told)), (without, alone, (_, fewer)) = traced(CONFIG, batch), traced(WITHOUT, batch)
    assert (alone.discriminator, alone.statistics, alone.discriminator_optimizer) == (None, None, None)
    assert len(jax.tree.leaves(alone)) == len(jax.tree.leaves((state.step, state.params, state.ema, state.optimizer)))
    assert told.keys() - fewer.keys() == {
        "loss/adversarial",
        "loss/discriminator",
        "logits/real",
        "logits/restored",
        "grad_norm/discriminator",
    }
    convolutions = [str(each).count("conv_general_dilated") for each in (program, without)]
    assert convolutions[0] > convolutions[1]
    assert len(without.eqns) < len(program.eqns)


def test_the_average_starts_at_the_weights(begin):
    assert all((begin.ema[path] == begin.params[path]).all() for path in begin.params)


def test_frozen_networks_have_no_state():
    params, frozen = split_weights(miniature_model().networks)
    assert {path.split(".")[0] for path in params} == {"visual_encoder", "spatial_encoder"}
    assert {path.split(".")[0] for path in frozen} == {"unet", "vae", "clip_vision"}
    state = abstract_state(abstract_networks(WITHOUT, MODEL), None, CONFIG.optimizer, make_mesh(MeshConfig()))
    weights = sum(leaf.size for leaf in jax.tree.leaves((params, params, params, params)))
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == weights + 2  # and the counts of steps


def test_master_weights_are_float32_and_frozen_ones_in_the_compute_dtype():
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    params, frozen = split_weights(abstract_networks(config, MODEL))
    assert {spec.dtype for spec in params.values()} == {jnp.dtype("float32")}
    assert {spec.dtype for spec in frozen.values()} == {jnp.dtype("bfloat16")}
