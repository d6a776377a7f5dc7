"""The restoration's contract, on the miniature model: dtypes, seeds, batches, arguments, folders, and one program."""

import dataclasses

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest

from interlcm_jax import InterLCM, InterLCMError, pipeline
from interlcm_jax.imaging.color_fix import ADAIN_EPSILON, low_pass
from interlcm_jax.models.weights import flat_weights
from interlcm_jax.pipeline import draw_noise
from tests.miniature import miniature_model
from tests.models.jaxprs import equations

SIZE, LATENT = 64, (8, 8, 4)
BATCHED = 1e-5  # maximum absolute difference of an image alone and in a batch, float32
BFLOAT16, BFLOAT16_RMS = 0.1, 0.02  # drift of a bfloat16 restoration whose pixels deviate by 0.6


@pytest.fixture(scope="module")
def model() -> InterLCM:
    return miniature_model()


def faces(count: int) -> np.ndarray:
    """Smooth uint8 images, so that colors and details both matter."""
    coarse = np.random.default_rng(count).uniform(0, 255, (count, 8, 8, 3))
    fine = np.random.default_rng(99).uniform(-20, 20, (count, SIZE, SIZE, 3))
    return np.clip(coarse.repeat(8, 1).repeat(8, 2) + fine, 0, 255).round().astype(np.uint8)


def scaled(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32) / np.float32(127.5) - 1


@pytest.fixture(scope="module")
def five() -> np.ndarray:
    return faces(5)


@pytest.fixture(scope="module")
def alone(model, five) -> np.ndarray:
    """Each of the five, restored by itself with seed 0."""
    return np.concatenate([model.restore(scaled(five[i : i + 1])) for i in range(5)])


def test_floats_give_floats_that_are_not_clipped(alone):
    assert alone.shape == (5, SIZE, SIZE, 3)
    assert alone.dtype == np.float32
    assert 0.1 < alone.std() < 3
    assert alone.max() > 1.05
    assert alone.min() < -1.05


def test_uint8_gives_uint8_and_the_seed_serves_every_image_of_a_batch(model, five, alone):
    restored = np.asarray(model.restore(five[:3]))
    assert restored.dtype == np.uint8
    levels = (np.clip(alone[:3], -1, 1) + 1) * 127.5
    assert np.abs(restored - levels).max() <= 0.5 + 127.5 * BATCHED


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(model, five, alone):
    image = scaled(five[:1])
    np.testing.assert_array_equal(model.restore(image, seed=0), alone[:1])
    other = np.asarray(model.restore(image, seed=1))
    assert np.abs(other - alone[0]).max() > 0.05


@pytest.fixture(scope="module")
def noise() -> jax.Array:
    """For the five: that of seed 0, and of seed 1 for the last."""
    return jnp.concatenate([draw_noise(jnp.uint32(seed), 3, LATENT) for seed in (0, 0, 0, 0, 1)], axis=1)


@pytest.fixture(scope="module")
def batch(model, five, noise) -> np.ndarray:
    return np.asarray(model.restore(scaled(five), noise))


def test_a_batch_with_its_own_noise_equals_each_image_alone_with_its_seed(model, five, alone, batch):
    expected = [*alone[:4], np.asarray(model.restore(scaled(five[4:]), seed=1))[0]]
    for i in range(5):
        assert np.abs(batch[i] - expected[i]).max() <= BATCHED, i


def test_noise_of_one_serves_all_and_tells_the_number_of_calls(model, five, alone):
    twins = scaled(five[[0, 0]])
    noise = draw_noise(jnp.uint32(0), 1, LATENT)
    restored = np.asarray(model.restore(twins, noise, color_fix="none"))
    np.testing.assert_allclose(restored[0], restored[1], atol=BATCHED)
    # One call and no color fix, so it can't be what three calls and the fix give.
    assert np.abs(restored[0] - alone[0]).max() > 0.05
    assert restored.mean() != pytest.approx(twins.mean(), abs=1e-3)


def test_two_calls_and_adain(model, five):
    image = scaled(five[:1])
    restored = np.asarray(model.restore(image, color_fix="adain", num_network_calls=2))
    np.testing.assert_allclose(restored.mean((1, 2)), image.mean((1, 2)), atol=1e-5)
    deviation = np.sqrt(image.var((1, 2), ddof=1) + ADAIN_EPSILON)
    np.testing.assert_allclose(restored.std((1, 2), ddof=1), deviation, rtol=1e-3)


@pytest.mark.parametrize(("task", "fix", "calls"), [("restoration", "wavelet", 3), ("colorization", "none", 1)])
def test_the_weights_own_settings_are_the_defaults(model, monkeypatch, task, fix, calls):
    config = dataclasses.replace(model.config, task=task, color_fix=fix, num_network_calls=calls)
    seen = []

    def program(*arguments):
        seen.append(arguments[-4:-2])
        return jnp.zeros((1, SIZE, SIZE, 3), jnp.uint8), None

    monkeypatch.setattr(pipeline, "_program", program)
    own, image = InterLCM(config, model.networks), np.zeros((1, SIZE, SIZE, 3), np.uint8)
    own.restore(image)
    own.restore(image, color_fix="adain", num_network_calls=2)
    assert seen == [(calls, fix), (2, "adain")]


def test_fidelity_moves_the_result_towards_the_input(model, five):
    lq = scaled(five[:1])
    restored = [np.asarray(model.restore(lq, fidelity=fidelity)) for fidelity in (0, 0.5, 1)]
    distances = [np.abs(low_pass(jnp.asarray(image - lq), 3)).mean() for image in restored]
    assert distances[0] > 1.2 * distances[1] > 1.2 * distances[2]
    np.testing.assert_array_equal(restored[0], model.restore(lq))


def test_the_vae_in_slices_gives_the_same(model, five, noise, batch):
    sliced = np.asarray(model.restore(scaled(five), noise, vae_slice=2))
    assert np.abs(sliced - batch).max() <= BATCHED
    with pytest.raises(InterLCMError, match="vae_slice is 0"):
        model.restore(five, vae_slice=0)
    # The same numbers, by a loop over the slices.
    whole, slices = (
        pipeline._program.on("cpu").lower(
            model.graph, model.config, model.weights, five, None, np.uint32(0), None, 1, "none", None, size
        )
        for size in (None, 2)
    )
    assert slices.as_text().count("stablehlo.while") > whole.as_text().count("stablehlo.while")


def test_a_calls_noise_depends_on_the_seed_and_the_call_alone():
    noise = np.asarray(draw_noise(jnp.uint32(0), 3, LATENT))
    np.testing.assert_array_equal(draw_noise(jnp.uint32(0), 1, LATENT), noise[:1])
    assert noise.shape == (3, 1, *LATENT)
    assert abs(noise.mean()) < 0.15
    assert abs(noise.std() - 1) < 0.1
    draws = [*noise, *np.asarray(draw_noise(jnp.uint32(1), 3, LATENT))]
    correlations = np.corrcoef([draw.ravel() for draw in draws]) - np.eye(6)
    assert np.abs(correlations).max() < 0.3


def noise_of(*shape: int) -> dict:
    return {"noise": np.zeros(shape, np.float32)}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("shape", "dtype", "arguments", "message"),
    [
        ((SIZE, SIZE, 3), "uint8", {}, r"lq has shape \(64, 64, 3\)"),
        ((1, 3, SIZE, SIZE), "float32", {}, r"lq has shape \(1, 3, 64, 64\)"),
        ((1, SIZE, 60, 3), "uint8", {}, r"\(1, 64, 60, 3\), .* multiples of 8"),
        ((1, 4, SIZE, 3), "uint8", {}, r"\(1, 4, 64, 3\)"),
        ((1, SIZE, SIZE, 4), "uint8", {}, r"\(1, 64, 64, 4\)"),
        ((0, SIZE, SIZE, 3), "uint8", {}, r"\(0, 64, 64, 3\)"),
        ((1, SIZE, SIZE, 3), "int32", {}, "lq is int32"),
        ((1, SIZE, SIZE, 3), "complex64", {}, "lq is complex64"),
        ((2, SIZE, SIZE, 3), "uint8", {"seed": -1}, "seed is -1"),
        ((2, SIZE, SIZE, 3), "uint8", {"seed": 2**32}, "seed is 4294967296"),
        ((2, SIZE, SIZE, 3), "uint8", {"seed": 0.5}, r"seed is 0\.5"),
        ((2, SIZE, SIZE, 3), "uint8", {"color_fix": "sepia"}, "color_fix is 'sepia', .* wavelet, adain, none"),
        ((2, SIZE, SIZE, 3), "uint8", {"fidelity": -0.1}, r"fidelity is -0\.1, .* from 0 to 1"),
        ((2, SIZE, SIZE, 3), "uint8", {"fidelity": 1.1}, r"fidelity is 1\.1"),
        ((2, SIZE, SIZE, 3), "uint8", {"fidelity": float("nan")}, "fidelity is nan"),
        ((2, SIZE, SIZE, 3), "uint8", {"fidelity": "0.5"}, "fidelity is '0.5'"),
        ((2, SIZE, SIZE, 3), "uint8", {"color_fix": ""}, "color_fix is ''"),
        ((2, SIZE, SIZE, 3), "uint8", {"num_network_calls": 0}, "num_network_calls is 0, .* from 1 to 49"),
        ((2, SIZE, SIZE, 3), "uint8", {"num_network_calls": 50}, "num_network_calls is 50"),
        ((2, SIZE, SIZE, 3), "uint8", {"num_network_calls": 1.5}, r"num_network_calls is 1\.5"),
        ((2, SIZE, SIZE, 3), "uint8", noise_of(0, 2, *LATENT), "num_network_calls is 0"),
        ((2, SIZE, SIZE, 3), "uint8", noise_of(), r"noise has shape \(\)"),
        ((2, SIZE, SIZE, 3), "uint8", noise_of(2, *LATENT), r"noise has shape \(2, 8, 8, 4\)"),
        ((2, SIZE, SIZE, 3), "uint8", noise_of(3, 3, *LATENT), r"\(3, 3, 8, 8, 4\), .* \(3, 2, 8, 8, 4\)"),
        ((2, SIZE, SIZE, 3), "uint8", noise_of(3, 2, 4, 8, 8), r"noise has shape \(3, 2, 4, 8, 8\)"),
        ((2, SIZE, SIZE, 3), "uint8", noise_of(3, 2, *LATENT) | {"num_network_calls": 1}, r"must be \(1, 2, 8, 8, 4\)"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_value(model, shape, dtype, arguments, message):
    with pytest.raises(InterLCMError, match=message):
        model.restore(np.zeros(shape, dtype), **arguments)


@pytest.mark.parametrize("options", [{"dtype": "float33"}, {"dtype": "int8"}, {"param_dtype": "float33"}])
def test_a_dtype_that_the_networks_do_not_run_in(tmp_path, options):
    with pytest.raises(InterLCMError, match=r"dtype is '(float33|int8)', but must be float32 or bfloat16"):
        InterLCM.from_pretrained(tmp_path, **options)


@pytest.mark.parametrize("dtype", ["int8", "float33"])
def test_a_dtype_that_no_weights_are_saved_in(model, tmp_path, dtype):
    with pytest.raises(InterLCMError, match=f"dtype is '{dtype}', but must be float32 or bfloat16 or float16"):
        model.save_pretrained(tmp_path / "model", dtype)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model"
    model.save_pretrained(path)
    return path


def test_saved_and_loaded_is_bitwise_the_same(model, folder, tmp_path):
    loaded = InterLCM.from_pretrained(str(folder))
    assert loaded.config == model.config
    before, after = flat_weights(model.networks), flat_weights(loaded.networks)
    assert before.keys() == after.keys()
    for path, weight in before.items():
        assert weight.get_value().dtype == after[path].get_value().dtype
        np.testing.assert_array_equal(weight.get_value(), after[path].get_value(), err_msg=path)
    loaded.save_pretrained(tmp_path / "again")
    for file in sorted(folder.iterdir()):
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes(), file.name
    with pytest.raises(InterLCMError, match="exists already"):
        loaded.save_pretrained(tmp_path / "again")


def test_bfloat16_drifts_within_bounds(folder, five, alone):
    half = InterLCM.from_pretrained(folder, "bfloat16")
    assert {weight.dtype for weight in jax.tree.leaves(half.weights)} == {jnp.dtype(jnp.bfloat16)}
    restored = np.asarray(half.restore(scaled(five[:1])))
    assert restored.dtype == np.float32
    drift = restored - alone[:1]
    assert 0 < np.abs(drift).max() <= BFLOAT16
    assert np.sqrt((drift**2).mean()) <= BFLOAT16_RMS


def test_weights_may_be_held_in_another_dtype_than_the_compute(folder):
    held = InterLCM.from_pretrained(folder, "bfloat16", param_dtype="float32")
    assert {weight.dtype for weight in jax.tree.leaves(held.weights)} == {jnp.dtype(jnp.float32)}


@pytest.fixture(scope="module")
def traced(model, five):
    """The whole restoration as it is for one image, seed 0."""
    lq = jnp.asarray(scaled(five[:1]))
    arguments = model.weights, lq, None, np.uint32(0), None, 3, "wavelet", None, None
    return pipeline._program.on("cpu").trace(model.graph, model.config, *arguments)


def test_weights_are_arguments_of_the_program(traced, model):
    weights = sum(weight.nbytes for weight in jax.tree.leaves(model.weights))
    assert len(traced.lower().as_text()) < weights / 2
    arguments = sum(np.prod(a.shape, dtype=int) * a.dtype.itemsize for a in jax.tree.leaves(traced.in_avals))
    assert arguments >= weights
    largest = max(weight.nbytes for weight in jax.tree.leaves(model.weights))
    assert sum(constant.nbytes for constant in traced.jaxpr.consts) < largest


def step_body(traced) -> jax.extend.core.Jaxpr:
    """The loop over the network calls, which must be there once."""
    [loop] = [e for e in equations(traced.jaxpr.jaxpr) if e.primitive.name == "scan" and e.params["length"] == 3]
    return loop.params["jaxpr"].jaxpr


def contracted(equation) -> int:
    (axes, _), _ = equation.params["dimension_numbers"]
    return int(np.prod([equation.invars[0].aval.shape[axis] for axis in axes]))


def test_the_context_is_projected_once_and_not_at_every_call(traced, model):
    width, tokens = model.config.unet.cross_attention_dim, model.config.visual_encoder.context_tokens
    everywhere = [e for e in equations(traced.jaxpr.jaxpr, into_scans=False) if e.primitive.name == "dot_general"]
    inside = [e for e in equations(step_body(traced)) if e.primitive.name == "dot_general"]
    # Each cross-attention has two projections of (B, tokens, width): to keys and to values.
    projections = [e for e in everywhere if contracted(e) == width and tokens in e.outvars[0].aval.shape]
    attentions = sum("attn2.to_k" in path for path in flat_weights(model.networks))
    assert len(projections) == 2 * attentions
    assert inside
    assert not [e for e in inside if contracted(e) == width]


def test_the_image_is_looked_at_once_and_not_at_every_call(traced):
    def resolutions(jaxpr, **options):
        convolutions = (e for e in equations(jaxpr, **options) if e.primitive.name == "conv_general_dilated")
        return {e.invars[0].aval.shape[1] for e in convolutions if e.invars[0].aval.ndim == 4}

    assert SIZE in resolutions(traced.jaxpr.jaxpr, into_scans=False)
    assert max(resolutions(step_body(traced))) == LATENT[0]


def test_the_embeddings_are_computed_once_and_not_at_every_call(traced):
    outside = {e.primitive.name for e in equations(traced.jaxpr.jaxpr, into_scans=False)}
    assert {"sin", "cos"} <= outside
    assert not {"sin", "cos", "random_bits", "threefry2x32"} & {e.primitive.name for e in equations(step_body(traced))}
