"""InterLCM's own training: its noise, and how the calls are compiled."""

import jax.numpy as jnp
import numpy as np

from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.training.stages import Restoration, restoration

MODEL = ModelConfig.miniature()


def test_noise_is_of_the_seed_and_the_step_and_differs_by_image(key):
    def noise(seed: int, step: int) -> np.ndarray:
        return Restoration().draw(key(step, seed), MODEL, (3, 64, 64, 3))["noise"]

    draws = [noise(seed, step) for seed, step in ((0, 0), (0, 1), (1, 0))]
    assert draws[0].shape == (3, MODEL.num_network_calls, 8, 8, 4)
    assert (draws[0] == noise(0, 0)).all()
    images = np.concatenate([np.asarray(draw) for draw in draws])
    assert len(np.unique(images[:, 0, 0, 0, 0])) == len(images)


def test_network_calls_are_compiled_as_the_configuration_says(monkeypatch):
    asked = {}
    monkeypatch.setattr(restoration, "restore", lambda n, m, lq, noise, **options: asked.update(options))
    images = {"lq": None, "hq": None, "noise": jnp.zeros((2, 3, 8, 8, 4))}
    Restoration(unroll=True, remat_calls=False).generate(None, MODEL, images)
    assert asked == {"unroll": True, "remat_calls": False}
    Restoration(unroll=False, remat_calls=True).generate(None, MODEL, images)
    assert asked == {"unroll": False, "remat_calls": True}
