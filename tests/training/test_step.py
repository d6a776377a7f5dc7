"""The step apart from PyTorch: the same on any mesh, in parts, recomputed; who is trained when; what lies where."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.models.discriminator import DiscriminatorConfig, PatchDiscriminator
from interlcm_jax.models.lpips import random_params
from interlcm_jax.models.weights import abstract
from interlcm_jax.training import sharding
from interlcm_jax.training.config import LossConfig, MeshConfig, OptimizerConfig, StartConfig, TrainConfig
from interlcm_jax.training.sharding import make_mesh, put_batch, weight_spec
from interlcm_jax.training.stages import restoration
from interlcm_jax.training.start import abstract_networks
from interlcm_jax.training.state import (
    abstract_state,
    discriminator_weights,
    initial_state,
    split_weights,
    state_shardings,
)
from interlcm_jax.training.step import _accumulated, make_step
from tests.miniature import miniature_model
from tests.models.random_weights import fill_randomly

MODEL = ModelConfig.miniature()
BATCH = 8
PARTS = 4  # of accumulation; no other loop of the step is as long
CONFIG = TrainConfig(
    start=StartConfig(random="miniature"),
    discriminator=DiscriminatorConfig.miniature(),
    losses=LossConfig(adversarial_from=1, lpips=0.0),
    optimizer=OptimizerConfig(learning_rate=1e-3, final_learning_rate=1e-4, decay_steps=10),
    dtype="float32",
    remat="none",
    batch_size=BATCH,
)
SAME = 1e-4  # relative, between meshes: sums in another order


@pytest.fixture(scope="module")
def judge():
    return fill_randomly(abstract(lambda rngs: PatchDiscriminator(DiscriminatorConfig.miniature(), rngs=rngs)))


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 256, (BATCH, 64, 64, 3), np.uint8) for name in ("lq", "hq")}


@pytest.fixture(scope="module")
def steps(judge, batch):
    """(state after two steps, metrics of both) of a configuration; each is run once."""

    @functools.cache
    def run(config: TrainConfig = CONFIG, devices: int = 1, fsdp: int = 1):
        networks = miniature_model().networks
        mesh = make_mesh(MeshConfig(fsdp=fsdp), jax.devices()[:devices])
        params, frozen = split_weights(networks)
        state = initial_state(params, *discriminator_weights(judge), config.optimizer)
        placed = state_shardings(state, mesh)
        perceptual = random_params(0) if config.losses.lpips else None
        with jax.set_mesh(mesh):
            state = jax.device_put(state, placed)
            frozen = jax.device_put(frozen, sharding.weight_shardings(frozen, mesh))
            step = make_step(config, MODEL, abstract_networks(config, MODEL), judge)
            program = jax.jit(step, out_shardings=(placed, None))
            told = []
            for _ in range(2):
                state, metrics = program(state, frozen, perceptual, put_batch(batch, mesh))
                told.append({name: float(value) for name, value in metrics.items()})
        return state, told

    return run


def assert_same(ours, reference):
    for mine, theirs in zip(ours[1], reference[1], strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in theirs.items():
            assert mine[name] == pytest.approx(value, rel=SAME, abs=1e-6), name
    for name in ("statistics",):
        for path, value in getattr(reference[0], name).items():
            np.testing.assert_allclose(getattr(ours[0], name)[path], value, rtol=1e-3, atol=1e-5, err_msg=path)


def test_eight_devices_give_what_one_gives(steps):
    assert_same(steps(devices=8, fsdp=2), steps())


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


def moments(optimizer) -> list[dict]:
    return [found for part in optimizer for found in part if isinstance(found, dict)]


def test_accumulated_parts_are_every_nth_image_and_their_means_are_returned():
    """Statistics go from part to part."""

    def gradients(state, frozen, perceptual, adversarial, statistics, images):
        total = images["hq"].sum()
        return {"weight": state.weight * images["hq"].mean()}, statistics * 2 + total, {"loss": images["hq"].max()}

    state = types.SimpleNamespace(weight=10.0, statistics=jnp.float32(1))
    run = functools.partial(_accumulated(gradients, 2), state, None, None, None)
    grads, statistics, metrics = jax.jit(run)({"hq": jnp.asarray([1.0, 20.0, 3.0, 40.0])})
    assert float(grads["weight"]) == pytest.approx(10 * (2 + 30) / 2)
    assert float(metrics["loss"]) == pytest.approx((3 + 40) / 2)
    assert float(statistics) == (1 * 2 + 4) * 2 + 60


def test_accumulation_is_the_configurations(judge, batch):
    """Traced alone: the parts' loop is in the program, and what comes out is a state as before."""
    networks = abstract_networks(CONFIG, MODEL)
    state = abstract_state(networks, judge, CONFIG.optimizer, make_mesh(MeshConfig()))
    step = make_step(dataclasses.replace(CONFIG, accumulate=PARTS), MODEL, networks, judge)
    program, (new, _) = jax.make_jaxpr(step, return_shape=True)(state, split_weights(networks)[1], None, batch)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), new) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert PARTS in [eqn.params["length"] for eqn in program.eqns if eqn.primitive.name == "scan"]


def test_recomputing_changes_nothing(steps):
    assert_same(steps(dataclasses.replace(CONFIG, remat="calls")), steps())


def test_batch_norm_sees_the_global_batch_or_single_images(steps):
    single = dataclasses.replace(CONFIG, losses=dataclasses.replace(CONFIG.losses, batch_norm="image"))
    assert steps(single)[1][0]["loss/discriminator"] != pytest.approx(steps()[1][0]["loss/discriminator"], rel=1e-4)


def test_the_discriminator_waits_for_its_step(steps):
    """Before it neither it nor its statistics move, and its verdict costs nothing."""
    state, told = steps()
    assert told[0]["grad_norm/discriminator"] == 0 < told[1]["grad_norm/discriminator"]
    assert told[0]["loss"] == pytest.approx(told[0]["loss/l1"])
    assert told[1]["loss"] != pytest.approx(told[1]["loss/l1"], rel=1e-3)
    assert [int(count) for count in jax.tree.leaves(state.discriminator_optimizer) if count.ndim == 0] == [1]
    assert [int(count) for count in jax.tree.leaves(state.optimizer) if count.ndim == 0] == [2]


def test_a_discriminator_of_weight_0_is_not_computed(judge, batch):
    """Traced alone: what isn't computed has no numbers."""
    config = dataclasses.replace(CONFIG, losses=dataclasses.replace(CONFIG.losses, adversarial=0.0))
    networks = abstract_networks(config, MODEL)
    state = abstract_state(networks, judge, config.optimizer, make_mesh(MeshConfig()))
    told = {}
    for weight in (0.0, 0.1):
        losses = dataclasses.replace(CONFIG.losses, adversarial=weight)
        step = make_step(dataclasses.replace(CONFIG, losses=losses), MODEL, networks, judge)
        _, told[weight] = jax.eval_shape(step, state, split_weights(networks)[1], None, batch)
    assert {name for name in told[0.1] if name.startswith("logits")}
    assert told[0.0].keys() == {name for name in told[0.1] if not name.startswith(("logits", "loss/adv", "loss/dis"))}


def test_the_average_starts_at_the_weights(judge):
    params, _ = split_weights(miniature_model().networks)
    state = initial_state(params, *discriminator_weights(judge), CONFIG.optimizer)
    assert all((state.ema[path] == state.params[path]).all() for path in params)


def test_frozen_networks_have_no_state(judge):
    params, frozen = split_weights(miniature_model().networks)
    assert {path.split(".")[0] for path in params} == {"visual_encoder", "spatial_encoder"}
    assert {path.split(".")[0] for path in frozen} == {"unet", "vae", "clip_vision"}
    state = abstract_state(abstract_networks(CONFIG, MODEL), judge, CONFIG.optimizer, make_mesh(MeshConfig()))
    weights = sum(leaf.size for leaf in jax.tree.leaves((params, params, params, params)))
    held = sum(leaf.size for leaf in jax.tree.leaves((state.params, state.ema, state.optimizer)))
    assert held == weights + 1  # and the count of steps


def test_master_weights_are_float32_and_frozen_ones_in_the_compute_dtype():
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    params, frozen = split_weights(abstract_networks(config, MODEL))
    assert {spec.dtype for spec in params.values()} == {jnp.dtype("float32")}
    assert {spec.dtype for spec in frozen.values()} == {jnp.dtype("bfloat16")}


def test_noise_is_of_the_seed_and_the_step_and_differs_by_image():
    def training_noise(seed: int, step: int) -> np.ndarray:
        config = dataclasses.replace(CONFIG, seed=seed)
        return restoration.draw(config, MODEL, jnp.int32(step), (3, 64, 64, 3))["noise"]

    draws = [training_noise(seed, step) for seed, step in ((0, 0), (0, 1), (1, 0))]
    assert draws[0].shape == (3, MODEL.num_network_calls, 8, 8, 4)
    assert (draws[0] == training_noise(0, 0)).all()
    images = np.concatenate([np.asarray(draw) for draw in draws])
    assert len(np.unique(images[:, 0, 0, 0, 0])) == len(images)


def test_rules_split_the_longest_axis_that_divides():
    mesh = make_mesh(MeshConfig(fsdp=4))
    spec = functools.partial(weight_spec, mesh=mesh)
    assert tuple(spec("a.kernel", (3, 3, 64, 128))) == (None, None, None, "fsdp")
    assert tuple(spec("a.kernel", (3, 3, 256, 98))) == (None, None, "fsdp", None)
    assert tuple(spec("a.kernel", (3, 3, 8, 8))) == ()
    assert tuple(spec("a.kernel", (1001, 333))) == ()
    assert tuple(spec("a.bias", (2**20,))) == ()
