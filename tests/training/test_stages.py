"""The stages that lead to InterLCM's own training: what each trains, on which loss, and that it learns."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interlcm_jax.diffusion.sampler import sample
from interlcm_jax.diffusion.schedule import consistency_coefficients
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.models.discriminator import DiscriminatorConfig, PatchDiscriminator
from interlcm_jax.models.weights import abstract, values, with_values
from interlcm_jax.restoration import encode, steered_denoiser
from interlcm_jax.training import losses
from interlcm_jax.training.config import (
    AutoencoderConfig,
    DistillationConfig,
    LossConfig,
    OptimizerConfig,
    PriorConfig,
    StartConfig,
    TrainConfig,
)
from interlcm_jax.training.stages import distillation, image_encoder, prior, restoration, stage_of, warm_up
from interlcm_jax.training.start import abstract_networks
from interlcm_jax.training.state import discriminator_weights, initial_state, split_weights
from interlcm_jax.training.step import make_step
from tests.models.random_weights import fill_randomly

MODEL = ModelConfig.miniature()
BATCH, STEPS = 2, 6
CONFIG = TrainConfig(
    start=StartConfig(random="miniature"),
    losses=LossConfig(lpips=0.0, adversarial=0.0),
    discriminator=DiscriminatorConfig.miniature(),
    optimizer=OptimizerConfig(learning_rate=3e-3, final_learning_rate=3e-3, decay_steps=10, ema=0.9),
    dtype="float32",
    remat="none",
    batch_size=BATCH,
)
TRAINED = {
    "autoencoder": {"vae"},
    "token_tower": {"clip_vision", "head"},
    "prior": {"unet"},
    "distillation": {"unet"},
    "warm_up": {"visual_encoder", "spatial_encoder"},
    "restoration": {"visual_encoder", "spatial_encoder"},
}


@pytest.fixture(scope="module")
def batch():
    """Smooth pictures, which small networks can learn."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (BATCH, 4, 4, 3))
    hq = jax.image.resize(coarse.astype(np.float32), (BATCH, 64, 64, 3), "cubic").clip(0, 255).astype(np.uint8)
    lq = jax.image.resize(hq[:, 4::8, 4::8].astype(np.float32), hq.shape, "linear").clip(0, 255).astype(np.uint8)
    return {"lq": lq, "hq": hq}


@functools.cache
def networks_of(stage: str):
    config = dataclasses.replace(CONFIG, stage=stage)
    networks = fill_randomly(abstract_networks(config, MODEL))
    if stage == "distillation":  # as in a run: the student starts as its teacher
        copies = {path.replace("unet.", "teacher.", 1): w for path, w in values(networks).items() if path[:4] == "unet"}
        networks = with_values(networks, {**values(networks), **copies})
    return config, networks


# Learning rates that random weights of deviation 1 stand.
@pytest.mark.parametrize(
    ("stage", "rate"),
    [("autoencoder", 3e-3), ("token_tower", 2e-4), ("prior", 3e-3), ("distillation", 1e-4), ("warm_up", 1e-4)],
)
def test_a_stage_trains_its_networks_and_its_loss_falls(stage, rate, batch):
    config, networks = networks_of(stage)
    optimizer = dataclasses.replace(config.optimizer, learning_rate=rate, final_learning_rate=rate)
    config = dataclasses.replace(config, optimizer=optimizer)
    params, frozen = split_weights(networks, stage_of(config).trained)
    assert {path.split(".")[0] for path in params} == TRAINED[stage]
    judge = fill_randomly(abstract(lambda rngs: PatchDiscriminator(config.discriminator, rngs=rngs)))
    state = initial_state(params, *discriminator_weights(judge), config.optimizer)
    step = jax.jit(make_step(config, MODEL, networks, judge))
    told = []
    for _ in range(STEPS):
        # The same draws each time: of random ones, so few steps would show the luck.
        state, metrics = step(dataclasses.replace(state, step=jnp.int32(0)), frozen, None, batch)
        told.append(float(metrics["loss"]))
    assert told[-1] < 0.97 * told[0], told
    assert max(told) == told[0]
    moved = {path for path in params if (state.params[path] != params[path]).any()}
    # Nothing depends on the guidance embedding before the distillation, nor on keys' biases; all else moves.
    still = {path for path in params if path not in moved}
    assert all("cond_proj" in path or path.endswith("bias") or "post_quant" in path for path in still), still
    assert len(moved) > 0.8 * len(params)


def test_the_decoder_trains_alone(batch):
    """The encoder's weights and their average stay to the bit."""
    config, networks = networks_of("autoencoder")
    config = dataclasses.replace(config, autoencoder=AutoencoderConfig(decoder_only=True))
    params, frozen = split_weights(networks, ("vae",))
    judge = fill_randomly(abstract(lambda rngs: PatchDiscriminator(config.discriminator, rngs=rngs)))
    state = initial_state(params, *discriminator_weights(judge), config.optimizer)
    step = jax.jit(make_step(config, MODEL, networks, judge))
    for _ in range(3):
        state, _ = step(state, frozen, None, batch)
    encoder = {path for path in params if path.startswith(("vae.encoder", "vae.quant_conv"))}
    for path in encoder:
        np.testing.assert_array_equal(state.params[path], params[path], err_msg=path)
        np.testing.assert_array_equal(state.ema[path], params[path], err_msg=path)
    moved = {path for path in params if (state.ema[path] != params[path]).any()}
    assert len(moved) > 0.8 * len(params.keys() - encoder)


def test_the_priors_loss_is_the_noises_error_and_dropped_conditions_are_zeros(batch):
    """At two timesteps of each image."""
    config, networks = networks_of("prior")
    config = dataclasses.replace(config, prior=PriorConfig(draws=2))
    images = {name: jnp.asarray(x, jnp.float32) / 127.5 - 1 for name, x in batch.items()}
    images |= prior.draw(config, MODEL, jnp.int32(0), images["hq"].shape)
    images["kept"] = jnp.array([[True, True], [False, True]])
    loss, _ = jax.jit(functools.partial(prior.loss, config, MODEL, networks, networks))(images)

    @jax.jit
    def expected(hq, timestep, noise, kept):
        latents = networks.vae.encode(hq)[0] * MODEL.vae.scaling_factor
        alphas = jnp.asarray(MODEL.schedule.alphas_cumprod())[timestep].reshape(-1, 1, 1, 1)
        noisy = jnp.sqrt(alphas) * latents + jnp.sqrt(1 - alphas) * noise
        context = prior.tokens(networks, MODEL, hq) * kept.astype(jnp.float32).reshape(-1, 1, 1)
        return ((networks.unet(noisy, timestep.astype(jnp.float32), context) - noise) ** 2).mean()

    draws = [expected(images["hq"], *(images[name][:, i] for name in ("timestep", "noise", "kept"))) for i in (0, 1)]
    assert abs(draws[0] - draws[1]) > 1e-3 * draws[0]
    assert float(loss) == pytest.approx(float(sum(draws)) / 2, rel=1e-4)


def test_an_image_drawn_several_times_is_several_images(batch):
    """The distillation at two places of each image, against one place of each image given twice."""
    config, networks = networks_of("distillation")
    images = {name: jnp.asarray(x, jnp.float32) / 127.5 - 1 for name, x in batch.items()}
    several = dataclasses.replace(config, distillation=DistillationConfig(draws=2))
    drawn = distillation.draw(several, MODEL, jnp.int32(0), images["hq"].shape)
    drawn["place"] = jnp.array([[0, 20], [3, 1]])  # where something is left of the latents
    twice = {name: jnp.repeat(x, 2, 0) for name, x in images.items()}
    once = {name: x.reshape(2 * BATCH, 1, *x.shape[2:]) for name, x in drawn.items()}

    def loss(config, images):
        return distillation.loss(config, MODEL, networks, networks, images)[0]

    found = jax.jit(functools.partial(loss, several))(images | drawn)
    assert float(found) == pytest.approx(float(jax.jit(functools.partial(loss, config))(twice | once)), rel=1e-5)


def test_draws_are_of_seed_and_step_and_cover_their_ranges():
    shape = (400, 64, 64, 3)
    first = prior.draw(CONFIG, MODEL, jnp.int32(0), shape)
    again, later = (prior.draw(CONFIG, MODEL, jnp.int32(step), shape) for step in (0, 1))
    assert all((first[name] == again[name]).all() for name in first)
    assert (first["noise"] != later["noise"]).any()
    assert 0 <= first["timestep"].min() < 30
    assert 970 < first["timestep"].max() < 1000
    assert 0.85 < first["kept"].mean() < 0.95
    place = distillation.draw(CONFIG, MODEL, jnp.int32(0), shape)
    assert (int(place["place"].min()), int(place["place"].max())) == (0, 49)
    assert 2 <= place["guidance"].min() < 3
    assert 13 < place["guidance"].max() <= 14


def test_guidance_leads_the_teacher_from_none_to_the_condition():
    """With w = -1 the condition has no part; with w = 0 its absence has none."""
    _, networks = networks_of("distillation")
    noisy, context = jnp.ones((1, 8, 8, 4)), jnp.ones((1, 17, 48))
    now, to = prior.noise_levels(MODEL, jnp.array([999])), prior.noise_levels(MODEL, jnp.array([979]))
    led = functools.partial(distillation.led_along, networks.teacher, noisy, jnp.array([999]))
    none, all_of_it = led(context, jnp.array([-1.0]), now, to), led(context, jnp.array([0.0]), now, to)
    np.testing.assert_allclose(none, led(0 * context, jnp.array([5.0]), now, to), atol=1e-4)
    assert jnp.abs(none - all_of_it).max() > 1e-3
    beyond = led(context, jnp.array([1.0]), now, to)
    np.testing.assert_allclose(beyond - all_of_it, all_of_it - none, atol=1e-4)


def test_the_consistency_function_is_the_identity_at_0():
    c_skip, c_out = consistency_coefficients(MODEL.schedule, np.array([0, 999]))
    assert (c_skip[0], c_out[0]) == (1, 0)
    assert c_skip[1] < 1e-6
    assert c_out[1] == pytest.approx(1)


def test_the_warm_up_wants_the_originals_latents_of_every_call_and_trains_each_by_itself(batch):
    """Against restorations that end early, each begun from what the one before gave, as a constant."""
    config, networks = networks_of("warm_up")
    params, frozen = split_weights(networks)
    images = {name: jnp.asarray(x, jnp.float32) / 127.5 - 1 for name, x in batch.items()}
    images |= warm_up.draw(config, MODEL, jnp.int32(0), images["hq"].shape)
    noise = images["noise"].swapaxes(0, 1)

    def loss(params):
        whole = with_values(networks, {**frozen, **params})
        return warm_up.loss(config, MODEL, whole, whole, images)[0]

    def expected(params, begins):
        whole = with_values(networks, {**frozen, **params})
        denoiser, *rest = steered_denoiser(whole, MODEL, images["lq"], len(noise))
        steps, inputs = rest
        total, found = 0.0, []
        for i, begin in enumerate(begins):
            only = jax.tree.map(lambda x, i=i: x[i : i + 1], (noise, steps, inputs))
            found.append(sample(denoiser, begin, *only))
            total += jnp.abs(found[-1] - encode(whole, MODEL, images["hq"])).mean() / len(noise)
        return total, found

    begins = [encode(networks, MODEL, images["lq"])]
    for _ in noise:
        begins = [begins[0], *jax.jit(expected)(params, begins)[1]]
    value, grads = jax.jit(jax.value_and_grad(loss))(params)
    (wanted, _), wanted_grads = jax.jit(jax.value_and_grad(expected, has_aux=True))(params, begins[: len(noise)])
    assert float(value) == pytest.approx(float(wanted), rel=1e-4)
    scale = max(float(jnp.abs(grad).max()) for grad in wanted_grads.values())
    for path, grad in wanted_grads.items():
        np.testing.assert_allclose(grads[path], grad, atol=1e-3 * scale, err_msg=path)


def test_hidden_patches_are_not_seen():
    _, networks = networks_of("token_tower")
    side = MODEL.clip_vision.image_size // MODEL.clip_vision.patch_size
    seen = jnp.arange(side * side)[None] % 3 > 0
    images = jax.random.normal(jax.random.key(0), (1, 32, 32, 3))
    hidden = jnp.repeat(jnp.repeat(~seen.reshape(1, side, side), 8, 1), 8, 2)[..., None]
    complete = functools.partial(image_encoder.completed, networks.clip_vision, networks.head, seen=seen)
    np.testing.assert_array_equal(complete(images), complete(jnp.where(hidden, 7.0, images)))
    assert (complete(images) != complete(jnp.where(hidden, images, 7.0))).any()


def test_patches_are_taken_row_by_row():
    image = jnp.arange(2 * 6 * 6 * 3).reshape(2, 6, 6, 3)
    found = image_encoder.patches(image, 3)
    assert found.shape == (2, 4, 27)
    np.testing.assert_array_equal(found[1, 1].reshape(3, 3, 3), image[1, :3, 3:])


def test_the_divergence_is_that_of_normal_distributions():
    """Against its integral over a fine grid."""
    mean, deviation, wide = 0.7, 0.4, 2.5
    x = np.linspace(-12, 12, 200_001)
    p, q = (np.exp(-(((x - m) / s) ** 2) / 2) / s / (2 * np.pi) ** 0.5 for m, s in ((mean, deviation), (0, wide)))
    expected = np.trapezoid(p * np.log(np.maximum(p, 1e-300) / np.maximum(q, 1e-300)), x)
    shape = (1, 2, 2, 4)
    found = losses.divergence(jnp.full(shape, mean), jnp.full(shape, 2 * np.log(deviation)), wide)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_the_pseudo_huber_loss_is_squared_near_and_absolute_far():
    near = losses.pseudo_huber(jnp.full((1, 3), 1e-3), jnp.zeros((1, 3)), 0.1)
    far = losses.pseudo_huber(jnp.full((1, 3), 50.0), jnp.zeros((1, 3)), 0.1)
    assert float(near) == pytest.approx(1e-6 / 0.2, rel=1e-2)
    assert float(far) == pytest.approx(49.9, rel=1e-5)


@pytest.mark.parametrize("stage", list(TRAINED))
def test_a_stage_shows_pictures(stage, batch):
    config, networks = networks_of(stage)
    lq, hq = (jnp.asarray(batch[name], jnp.float32) / 127.5 - 1 for name in ("lq", "hq"))
    shown = jax.jit(functools.partial(stage_of(config).show, networks, MODEL))(lq, hq)
    assert shown.shape == hq.shape
    assert jnp.isfinite(shown).all()
    assert (shown[0] != shown[1]).any()


@pytest.mark.parametrize("unroll", [False, True])
def test_network_calls_are_unrolled_where_the_configuration_says_so(unroll, monkeypatch):
    asked = {}
    monkeypatch.setattr(restoration, "restore", lambda n, m, lq, noise, **options: asked.update(options))
    images = {"lq": None, "hq": None, "noise": jnp.zeros((2, 3, 8, 8, 4))}
    restoration.generate(dataclasses.replace(CONFIG, unroll=unroll, remat="calls"), MODEL, None, images)
    assert asked == {"unroll": unroll, "remat_calls": True, "cut": None}
