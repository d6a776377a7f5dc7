"""The warm-up's loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interlcm_jax.diffusion.sampler import sample
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.models.weights import with_values
from interlcm_jax.restoration import encode, steered_denoiser
from interlcm_jax.training.stages import WarmUp
from interlcm_jax.training.state import split_weights

MODEL = ModelConfig.miniature()


def test_it_wants_the_originals_latents_of_every_call_and_trains_each_by_itself(images, networks_of, key):
    """Against restorations that end early, each begun from what the one before gave, as a constant."""
    networks = networks_of(WarmUp)
    params, frozen = split_weights(networks)
    images = images | WarmUp().draw(key(), MODEL, images["hq"].shape)
    noise = images["noise"].swapaxes(0, 1)

    def loss(params):
        whole = with_values(networks, {**frozen, **params})
        return WarmUp().loss(whole, whole, MODEL, images)[0]

    def call(whole, i, begin):
        denoiser, steps, inputs = steered_denoiser(whole, MODEL, images["lq"], len(noise))
        return sample(denoiser, begin, *jax.tree.map(lambda x: jnp.asarray(x)[i][None], (noise, steps, inputs)))

    def expected(params, i, begin):
        whole = with_values(networks, {**frozen, **params})
        clean = call(whole, i, begin)
        return jnp.abs(clean - encode(whole, MODEL, images["hq"])).mean() / len(noise), clean

    value, grads = jax.jit(jax.value_and_grad(loss))(params)
    of_call = jax.jit(jax.value_and_grad(expected, has_aux=True))
    begin = jax.jit(encode, static_argnums=1)(networks, MODEL, images["lq"])
    wanted, wanted_grads = 0.0, jax.tree.map(jnp.zeros_like, params)
    for i in range(len(noise)):
        (part, begin), part_grads = of_call(params, jnp.int32(i), begin)
        wanted, wanted_grads = wanted + part, jax.tree.map(jnp.add, wanted_grads, part_grads)
    assert float(value) == pytest.approx(float(wanted), rel=1e-4)
    scale = max(float(jnp.abs(grad).max()) for grad in wanted_grads.values())
    for path, grad in wanted_grads.items():
        np.testing.assert_allclose(grads[path], grad, atol=1e-3 * scale, err_msg=path)
