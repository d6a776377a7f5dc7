"""UNet and ControlNet by themselves: sizes, rematerialization, bfloat16, what is computed once, batches."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from interlcm_jax.errors import InterLCMError
from interlcm_jax.models.controlnet import ControlNet, ControlNetConfig
from interlcm_jax.models.unet import UNet2DCondition, UNetConfig
from interlcm_jax.models.weights import abstract, skeleton
from tests.models.jaxprs import equations, recomputations
from tests.models.random_weights import fill_randomly

UNET, CONTROLNET = UNetConfig.miniature(), ControlNetConfig.miniature()
# Has blocks of every name, compiles sooner.
SHALLOW = dataclasses.replace(
    UNET, block_out_channels=(16,), down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",)
)


def build(network: type, config: UNetConfig, **options: object) -> nnx.Module:
    return abstract(lambda rngs: network(config, rngs=rngs, **options))


@pytest.mark.parametrize(
    ("network", "config", "count"),
    [
        (UNet2DCondition, UNetConfig.lcm(), 859_602_884),
        (UNet2DCondition, UNetConfig.sd15(), 859_520_964),
        (ControlNet, ControlNetConfig.sd15(), 361_279_120),
    ],
)
def test_real_size(network, config, count):
    assert sum(math.prod(spec.shape) for spec in skeleton(build(network, config)).values()) == count


# Rematerialization.


def gradients(graph: nnx.GraphDef, state: nnx.State, *inputs: jax.Array) -> tuple[jax.Array, ...]:
    def loss(state, latents, context, cond):
        return jnp.mean(jnp.sin(nnx.merge(graph, state)(latents, jnp.array([259.0]), context, cond)))

    return jax.value_and_grad(loss, argnums=(0, 1, 2))(state, *inputs)


def normal(*shapes: tuple[int, ...]) -> tuple[jax.Array, ...]:
    generator = np.random.default_rng(1)
    return tuple(jnp.asarray(generator.standard_normal(shape), jnp.float32) for shape in shapes)


SHALLOW_INPUTS = normal((1, 4, 6, 4), (1, 3, UNET.cross_attention_dim), (1, UNET.time_cond_proj_dim))
DOWN, MID, UP = 1 + 1, 2 + 1, 2 + 2  # resnets and transformers of each block, each recomputed by itself
REMATS = {False: 0, True: DOWN + MID + UP, ("down_blocks.0", "mid_block"): DOWN + MID, ("up_blocks.0",): UP}


@pytest.mark.parametrize(("remat", "count"), REMATS.items())
def test_remat_recomputes_the_blocks_asked_for(remat, count):
    graph, state = nnx.split(build(UNet2DCondition, SHALLOW, remat=remat))
    assert recomputations(jax.make_jaxpr(gradients, static_argnums=0)(graph, state, *SHALLOW_INPUTS).jaxpr) == count


@pytest.mark.parametrize(
    ("remat", "count"), [(False, 0), (True, 1 + DOWN + MID), (("controlnet_cond_embedding", "mid_block"), 1 + MID)]
)
def test_remat_of_the_controlnet(remat, count):
    graph, state = nnx.split(build(ControlNet, ControlNetConfig.from_unet(SHALLOW), remat=remat))
    latents, context, image = normal((1, 4, 6, 4), (1, 3, UNET.cross_attention_dim), (1, 32, 48, 3))

    def loss(state):
        down, mid = nnx.merge(graph, state)(latents, jnp.array([259.0]), context, image)
        return sum(jnp.mean(jnp.sin(x)) for x in [*down, mid])

    assert recomputations(jax.make_jaxpr(jax.grad(loss))(state).jaxpr) == count


def test_remat_changes_neither_loss_nor_gradients():
    # Less optimized code, as compiling takes most of the time.
    step = jax.jit(gradients, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0})
    networks = [fill_randomly(build(UNet2DCondition, SHALLOW, remat=remat)) for remat in list(REMATS)[:3]]
    plain, *others = [jax.tree.leaves(step(*nnx.split(network), *SHALLOW_INPUTS)) for network in networks]
    assert all(np.abs(leaf).max() > 0 for leaf in plain)
    for leaves in others:
        for ours, theirs in zip(leaves, plain, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize(
    ("network", "config", "name"),
    [(UNet2DCondition, UNET, "up_blocks.2"), (ControlNet, CONTROLNET, "up_blocks.0"), (UNet2DCondition, UNET, "mid")],
)
def test_an_unknown_block_is_refused(network, config, name):
    with pytest.raises(InterLCMError, match=rf"remat names {name}, but .*down_blocks.0, down_blocks.1, mid_block"):
        build(network, config, remat=("mid_block", name))


# Numbers: one program that runs both networks, compiled for each case.


@nnx.jit
def predict(unet, controlnet, latents, steps, context, cond, image):
    down, mid = controlnet(latents, steps, context, image)
    return [*down, mid], unet(latents, steps, context, cond, down, mid)


@nnx.jit
def predict_in_parts(unet, controlnet, latents, steps, context, cond, image):
    temb, key_values = unet.embed_time(steps, cond), unet.key_values(context)
    control = controlnet.embed_time(steps), controlnet.key_values(context), controlnet.embed_condition(image)
    down, mid = controlnet.residuals(latents, *control)
    return [*down, mid], unet.denoise(latents, temb, key_values, down, mid)


def pair(config: UNetConfig = SHALLOW, **options: object) -> tuple[nnx.Module, nnx.Module]:
    control = ControlNetConfig.from_unet(config, conditioning_embedding_out_channels=(4, 8, 8, 16))
    return tuple(fill_randomly(build(n, c, **options)) for n, c in ((UNet2DCondition, config), (ControlNet, control)))


@pytest.fixture(scope="module")
def inputs() -> tuple[jax.Array, ...]:
    latents, context, cond, image = normal((3, 8, 12, 4), (3, 7, 48), (3, 16), (3, 64, 96, 3))
    return latents, jnp.array([759.0, 499.0, 259.0]), context, cond, image


@pytest.fixture(scope="module")
def expected(inputs):
    return predict(*pair(), *inputs)


def test_what_is_computed_once_gives_the_same_numbers(inputs, expected):
    jax.tree.map(np.testing.assert_array_equal, predict_in_parts(*pair(), *inputs), expected)


def test_an_example_does_not_depend_on_its_batch(inputs, expected):
    alone = predict(*pair(), *(x[1:2] for x in inputs))
    for ours, batched in zip(jax.tree.leaves(alone), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, batched[1:2], rtol=0, atol=1e-5)


def drift(actual: jax.Array, expected: jax.Array) -> float:
    return float(jnp.std(actual.astype(jnp.float32) - expected) / jnp.std(expected))


def test_bfloat16_stays_close_to_float32(inputs, expected):
    half = pair(dtype=jnp.bfloat16)
    assert all(x.dtype == jnp.float32 for network in half for x in jax.tree.leaves(nnx.state(network, nnx.Param)))
    residuals, eps = predict(*half, *inputs)
    assert eps.dtype == jnp.float32  # the schedule goes on in float32
    assert all(residual.dtype == jnp.bfloat16 for residual in residuals)
    # Measured: 0.0045 to 0.0076 for the residuals, 0.0126 for eps, which takes them.
    assert all(0.001 < drift(*both) < 0.015 for both in zip(residuals, expected[0], strict=True))
    assert 0.001 < drift(eps, expected[1]) < 0.02


def test_bfloat16_keeps_norms_and_softmax_in_float32(inputs):
    networks = [nnx.split(network) for network in pair(UNET, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)]

    def run(states, *inputs):
        return predict(*(nnx.merge(graph, state) for (graph, _), state in zip(networks, states, strict=True)), *inputs)

    seen = {}
    for equation in equations(jax.make_jaxpr(run)([state for _, state in networks], *inputs).jaxpr):
        seen.setdefault(equation.primitive.name, []).extend(x.aval.dtype for x in equation.invars[:1])
    resnets, transformers = (2 + 2 + 4) + (2 + 2), (1 + 1 + 2) + (1 + 1)  # the UNet's, the ControlNet's
    assert len(seen["rsqrt"]) == 2 * resnets + (1 + 3) * transformers + 1
    assert len(seen["exp"]) == 2 * transformers
    assert set(seen["rsqrt"] + seen["exp"] + seen["reduce_sum"]) == {jnp.dtype(jnp.float32)}
    assert set(seen["conv_general_dilated"]) == {jnp.dtype(jnp.bfloat16)}
