"""The programs that benchmarks compile: what their arguments are and where they lie."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.programs import ATTENTION, RESTORATION, Setting, model_config, train_config, training_step
from interlcm_jax.training.config import MeshConfig

MODEL = model_config("miniature")


def setting(batch: int = 1, dtype: jax.typing.DTypeLike = jnp.bfloat16, **options: bool | int) -> Setting:
    cpu = jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])
    return Setting(MODEL, batch, jnp.dtype(dtype), cpu, **options)


def outputs(program) -> list[tuple[int, ...]]:
    return [result.shape for result in jax.tree.leaves(program.traced().lower().out_info)]


def test_each_program_gives_what_its_name_says():
    shapes = {name: outputs(build(setting(2))) for name, build in (RESTORATION | ATTENTION).items()}
    images, latents = [(2, 64, 64, 3)], [(2, 8, 8, 4)]
    assert shapes.pop("restore") == shapes.pop("decode") == images
    assert shapes.pop("unet") == shapes.pop("encode") == latents
    assert len(set(map(tuple, shapes.values()))) == 1
    ((batch, tokens, heads, width),) = shapes["attention"]
    assert (batch, tokens, heads * width) == (2, 64, MODEL.unet.block_out_channels[0])


@pytest.mark.parametrize(("options", "loops"), [({"unroll": True}, 0), ({}, 1), ({"vae_slice": 1, "unroll": True}, 2)])
def test_the_restoration_has_loops_only_where_asked_for(options, loops):
    lowered = RESTORATION["restore"](setting(2, **options)).traced().lower()
    assert lowered.as_text().count("stablehlo.while") == loops


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_a_filled_program_runs_in_the_dtype_asked_for(dtype):
    program = RESTORATION["decode"](setting(dtype=dtype))
    weights, latents = program.filled()
    assert {weight.dtype for weight in jax.tree.leaves(weights)} == {jnp.dtype(dtype)}
    result = np.asarray(program.traced().lower().compile()(weights, latents), np.float32)
    assert result.std() > 0


def test_the_training_state_is_split_and_the_images_lie_on_all_devices():
    config = train_config("miniature", mesh=MeshConfig(2, 2), batch_size=4)
    program = training_step(config, MODEL, jax.devices()[:4])
    state, frozen, _, batch = program.arguments
    assert batch["lq"].sharding.shard_shape(batch["lq"].shape) == (1, 64, 64, 3)
    assert any("fsdp" in tuple(spec.sharding.spec) for spec in state.params.values())
    assert state.params.keys() == state.ema.keys()
    assert all(spec.dtype == jnp.bfloat16 for spec in frozen.values())


def test_a_filled_training_state_is_one_that_adam_goes_on_with():
    config = train_config("miniature", batch_size=2)
    program = training_step(config, MODEL, jax.devices()[:1])
    state, frozen, _, batch = program.filled()
    assert int(state.step) == 0
    assert min(float(moment.min()) for moment in jax.tree.leaves(state.optimizer)) >= 0
    assert min(float(weight.min()) for weight in frozen.values()) < 0
    assert np.unique(batch["lq"]).size > 200
    shapes = jax.tree.map(lambda spec: (spec.shape, spec.dtype), program.arguments[0])
    assert jax.tree.map(lambda array: (array.shape, array.dtype), state) == shapes
