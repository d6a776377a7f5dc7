"""The restoration inside a user's own program, and under a user's own settings of JAX."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from interlcm_jax import InterLCM, InterLCMError
from interlcm_jax.models.kernels.winograd import winograd
from interlcm_jax.restoration import draw_noise
from interlcm_jax.training.stage import stream
from tests.miniature import miniature_model

CLOSE = 1e-5  # of the same function as part of another program


@pytest.fixture(scope="module")
def model() -> InterLCM:
    return miniature_model()


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def restored(model, faces) -> np.ndarray:
    return np.asarray(model.restore(faces, seed=3, fidelity=0.25))


def test_part_of_a_compiled_program(model, faces, restored):
    program = jax.jit(lambda x, seed, fidelity: model.restore(x, seed=seed, fidelity=fidelity) * 2)
    np.testing.assert_allclose(program(faces, 3, 0.25), 2 * restored, atol=2 * CLOSE, rtol=0)
    # Constants too: nothing of the inner call is known to be traced but that something is.
    constant = jax.jit(lambda: model.restore(faces, seed=3, fidelity=0.25))
    np.testing.assert_allclose(constant(), restored, atol=CLOSE, rtol=0)


def test_before_the_first_call_and_without_running():
    fresh = miniature_model()
    shape = jax.eval_shape(fresh.restore, jax.ShapeDtypeStruct((3, 64, 64, 3), jnp.uint8))
    assert (shape.shape, shape.dtype) == ((3, 64, 64, 3), jnp.uint8)


def test_mapped_over_images_and_seeds(model, faces, restored):
    one = functools.partial(model.restore, fidelity=0.25)
    mapped = jax.lax.map(lambda pair: one(pair[0][None], seed=pair[1])[0], (faces, jnp.array([3, 3])))
    np.testing.assert_allclose(mapped, restored, atol=CLOSE, rtol=0)


def test_differentiated(model, faces):
    """The gradient's slope along a direction is the difference quotient's."""

    @jax.jit
    def energy(x):
        return jnp.square(model.restore(x, num_network_calls=1, color_fix="none")).mean()

    x, direction = faces[:1], np.random.default_rng(1).normal(size=faces[:1].shape).astype(np.float32)
    slope = float(jnp.vdot(jax.grad(energy)(x), direction))
    step = 1e-2
    quotient = float(energy(x + step * direction) - energy(x - step * direction)) / (2 * step)
    assert slope == pytest.approx(quotient, rel=0.02)


def test_exported(model, faces, restored):
    exported = jax.export.export(jax.jit(functools.partial(model.restore, seed=3, fidelity=0.25)))(faces)
    again = jax.export.deserialize(exported.serialize())
    np.testing.assert_allclose(again.call(faces), restored, atol=CLOSE, rtol=0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("seed", [jnp.zeros(2, jnp.int32), jnp.float32(1)])
def test_a_traced_seed_that_is_none(model, faces, seed):
    with pytest.raises(InterLCMError, match="but must be one integer"):
        jax.eval_shape(lambda seed: model.restore(faces, seed=seed), seed)


def test_double_precision_switched_on_changes_no_byte(model, faces, restored):
    with jax.enable_x64(True):
        np.testing.assert_array_equal(model.restore(faces, seed=3, fidelity=0.25), restored)


def test_double_precision_at_widths_that_winograd_takes():
    rng = np.random.default_rng(0)
    x, kernel = (rng.normal(size=shape).astype(np.float32) for shape in ((1, 16, 16, 8), (3, 3, 8, 8)))
    plain = np.asarray(winograd(jnp.asarray(x), jnp.asarray(kernel)))
    with jax.enable_x64(True):
        np.testing.assert_array_equal(winograd(jnp.asarray(x), jnp.asarray(kernel)), plain)


@pytest.mark.parametrize("generator", ["rbg", "unsafe_rbg"])
def test_seeds_keep_their_meaning_whatever_generator_is_the_default(generator):
    drawn = np.asarray(draw_noise(jnp.uint32(3), 2, (4, 4, 4)))
    key = jax.random.key_data(stream(5, 1, jnp.int32(7)))
    with jax.default_prng_impl(generator):
        np.testing.assert_array_equal(draw_noise(jnp.uint32(3), 2, (4, 4, 4)), drawn)
        np.testing.assert_array_equal(jax.random.key_data(stream(5, 1, jnp.int32(7))), key)


def test_nothing_crosses_to_the_device_unasked(model, faces, restored):
    on_device = jax.device_put(faces)
    with jax.transfer_guard("disallow"):
        again = model.restore(on_device, seed=3, fidelity=0.25)
    np.testing.assert_array_equal(again, restored)
