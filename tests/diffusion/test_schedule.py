"""The LCM schedule: timesteps, noise levels, coefficients, and what it refuses."""

import numpy as np
import pytest

from interlcm_jax.diffusion.schedule import ScheduleConfig, restoration_steps
from interlcm_jax.errors import InterLCMError

CONFIG = ScheduleConfig()


@pytest.mark.parametrize(
    ("num_steps", "timesteps"),
    [(1, [999]), (2, [999, 499]), (4, [999, 759, 499, 259]), (8, [999, 879, 759, 639, 499, 379, 259, 139])],
)
def test_timesteps(num_steps, timesteps):
    assert CONFIG.timesteps(num_steps).tolist() == timesteps


def test_as_many_steps_as_the_grid_has():
    assert CONFIG.timesteps(50).tolist() == list(range(999, 0, -20))


@pytest.mark.parametrize("num_steps", [0, -1, 51])
def test_refuses_steps_that_are_not_on_the_grid(num_steps):
    with pytest.raises(InterLCMError, match=f"num_steps is {num_steps}, .* takes 1 to 50"):
        CONFIG.timesteps(num_steps)


def test_alphas_cumprod():
    alphas = CONFIG.alphas_cumprod()
    assert alphas.dtype == np.float32
    assert alphas.shape == (1000,)
    assert (np.diff(alphas) < 0).all()
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    np.testing.assert_allclose(alphas, np.cumprod(1 - betas), rtol=0, atol=1e-6)
    np.testing.assert_allclose(alphas[[0, -1]], [0.99915, 0.00466009], rtol=2e-5)


def test_the_three_step_model_skips_the_first_timestep():
    steps = restoration_steps(CONFIG, 3)
    assert steps.timesteps.tolist() == [759, 499, 259]
    assert restoration_steps(CONFIG, 1).timesteps.tolist() == [499]
    assert all(x.dtype == np.float32 for x in steps)
    np.testing.assert_allclose(steps.signal**2, CONFIG.alphas_cumprod()[[759, 499, 259]], rtol=1e-6)
    np.testing.assert_allclose(steps.signal**2 + steps.sigma**2, 1, rtol=1e-6)
    scaled = np.array([7590.0, 4990.0, 2590.0])
    np.testing.assert_allclose(steps.c_skip, 0.25 / (scaled**2 + 0.25), rtol=1e-6)
    np.testing.assert_allclose(steps.c_out, scaled / np.sqrt(scaled**2 + 0.25), rtol=1e-6)


def test_other_starts_skip_other_timesteps():
    assert restoration_steps(CONFIG, 4, skipped_steps=0).timesteps.tolist() == [999, 759, 499, 259]
    assert restoration_steps(CONFIG, 2, skipped_steps=2).timesteps.tolist() == [499, 259]
    with pytest.raises(InterLCMError, match="takes 1 to 48"):
        restoration_steps(CONFIG, 49, skipped_steps=2)


@pytest.mark.parametrize("calls", [0, -1, 50])
def test_refuses_calls_that_are_not_on_the_grid(calls):
    with pytest.raises(InterLCMError, match=f"num_network_calls is {calls}, .* takes 1 to 49"):
        restoration_steps(CONFIG, calls)


def test_config_survives_its_file():
    config = ScheduleConfig(num_train_timesteps=500, original_inference_steps=25, timestep_scaling=5.0)
    assert ScheduleConfig.from_json(config.to_json()) == config
    assert ScheduleConfig.from_json({"_class_name": "LCMScheduler", "clip_sample": True, "steps_offset": 1}) == CONFIG


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("beta_schedule", "linear"),
        ("prediction_type", "v_prediction"),
        ("rescale_betas_zero_snr", True),
        ("trained_betas", [0.1]),
    ],
)
def test_refuses_another_kind_of_schedule(key, value):
    with pytest.raises(InterLCMError, match=key):
        ScheduleConfig.from_json({**CONFIG.to_json(), key: value})
