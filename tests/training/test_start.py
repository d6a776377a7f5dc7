"""Where the networks' weights come from before the first step."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interlcm_jax.cli.main import main
from interlcm_jax.data.loader import DataConfig
from interlcm_jax.errors import InterLCMError
from interlcm_jax.models.discriminator import DiscriminatorConfig
from interlcm_jax.models.weights import values, with_values
from interlcm_jax.training.config import AutoencoderConfig, MeshConfig, RunConfig, StartConfig, TrainConfig
from interlcm_jax.training.sharding import make_mesh
from interlcm_jax.training.stages import stage_of
from interlcm_jax.training.start import initial_weights, load_start
from interlcm_jax.training.state import split_weights
from tests.miniature import miniature_model

OUTPUTS = (
    "spatial_encoder.controlnet_down_blocks",
    "spatial_encoder.controlnet_mid_block",
    "spatial_encoder.controlnet_cond_embedding.conv_out",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder, and LCM and CLIP as they are published."""
    folder = tmp_path_factory.mktemp("start")
    miniature_model().save_pretrained(folder / "model")
    return folder


@pytest.fixture(scope="module")
def published(folder):
    pytest.importorskip("torch")
    assert main(["export", str(folder / "model"), "-o", str(folder / "published")]) == 0
    return folder / "published"


def begin(dtype="float32", seed=0, **start):
    config = TrainConfig(
        start=StartConfig(**start),
        data=DataConfig(image_size=64),
        discriminator=DiscriminatorConfig.miniature(),
        dtype=dtype,
        seed=seed,
    )
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    started = load_start(config, mesh)
    params = initial_weights(config, started, mesh)
    return started.model, params, split_weights(started.networks, stage_of(config).trained)[1]


def test_a_new_decoder_takes_over_the_encoder(folder):
    """Its own weights are new and of the widths asked for; all that makes latents, and the map back, is the model's."""
    widths = (4, 8, 16, 20)
    config = TrainConfig(
        stage="autoencoder",
        start=StartConfig(model=str(folder / "model")),
        data=DataConfig(image_size=64),
        discriminator=DiscriminatorConfig.miniature(),
        autoencoder=AutoencoderConfig(decoder_only=True, new_decoder=widths),
        dtype="float32",
    )
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    started = load_start(config, mesh)
    params = initial_weights(config, started, mesh)
    model = values(miniature_model().networks)
    assert started.model.vae.decoder_block_out_channels == widths
    assert params["vae.decoder.conv_in.kernel"].shape == (3, 3, 4, 20)
    assert float(jnp.abs(params["vae.decoder.conv_in.kernel"]).max()) > 0
    kept = {path for path in params if not path.startswith("vae.decoder.")}
    assert {path.split(".")[1] for path in kept} == {"encoder", "quant_conv", "post_quant_conv"}
    for path in kept:
        np.testing.assert_array_equal(params[path], model[path], err_msg=path)


def assert_equal(ours, reference):
    assert ours.keys() == reference.keys()
    for path, weight in reference.items():
        np.testing.assert_array_equal(ours[path], weight, err_msg=path)


def assert_new_encoders(params, unet):
    """The UNet's down path, output convolutions of zero, and the rest random."""
    own = "spatial_encoder."
    down = [path for path in params if path.startswith(own) and not path.startswith(f"{own}controlnet_")]
    assert len(down) > 50
    for path in down:
        np.testing.assert_array_equal(params[path], unet["unet." + path.removeprefix(own)], err_msg=path)
    for path, weight in params.items():
        if path.startswith(OUTPUTS):
            assert not weight.any(), path
        elif path.endswith("kernel"):
            assert weight.std() > 0, path


def test_a_model_folder_gives_all(folder):
    model, params, frozen = begin(model=str(folder / "model"), num_network_calls=1, skipped_steps=2, task="inpainting")
    trained, others = split_weights(miniature_model().networks)
    assert_equal(params, trained)
    assert_equal(frozen, others)
    assert (model.num_network_calls, model.skipped_steps, model.task) == (1, 2, "inpainting")
    assert model.color_fix == "none"


def test_fresh_encoders(folder):
    _, params, frozen = begin(model=str(folder / "model"), fresh=True)
    assert_new_encoders(params, frozen)


@pytest.mark.parametrize("without", ["visual_encoder", "spatial_encoder"])
def test_an_encoder_that_is_done_without_has_no_part(folder, without):
    """The restoration isn't touched by what that encoder sees: the UNet has no context, or nothing is added to it."""
    model, params, frozen = begin(model=str(folder / "model"), without=(without,))
    other = {"visual_encoder": "spatial_encoder", "spatial_encoder": "visual_encoder"}[without]
    assert {path.split(".")[0] for path in params} == {other}
    assert not any(weight.any() for path, weight in frozen.items() if path.startswith(without))
    networks = with_values(miniature_model().networks, {**frozen, **params})
    if without == "visual_encoder":
        tokens = jax.random.normal(jax.random.key(0), (1, model.clip_vision.num_tokens, model.clip_vision.hidden_size))
        outputs = [networks.visual_encoder(tokens)]
    else:
        latents, context = jnp.ones((1, 8, 8, 4)), jnp.ones((1, 7, model.unet.cross_attention_dim))
        outputs = networks.spatial_encoder(latents, jnp.ones(1), context, jnp.ones((1, 64, 64, 3)))
    assert not any(output.any() for output in jax.tree.leaves(outputs))


def test_a_folder_without_encoders_gets_new_ones(folder, tmp_path):
    shutil.copytree(folder / "model", tmp_path / "model")
    for name in ("visual_encoder", "spatial_encoder"):
        (tmp_path / "model" / f"{name}.safetensors").unlink()
    _, params, frozen = begin(model=str(tmp_path / "model"))
    assert_new_encoders(params, frozen)


def test_published_networks(published):
    model, params, frozen = begin(lcm=str(published / "lcm"), clip=str(published / "clip"))
    assert_equal(frozen, split_weights(miniature_model().networks)[1])
    assert_new_encoders(params, frozen)
    reference = miniature_model().config
    assert (model.unet, model.vae, model.schedule) == (reference.unet, reference.vae, reference.schedule)
    assert model.visual_encoder.features == reference.clip_vision.hidden_size


def test_the_spatial_encoder_starts_as_the_unet_that_is_named(published, tmp_path):
    """SD 1.5's has no guidance embedding; here it is told from the LCM's by its numbers."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(published / "lcm" / "unet", tmp_path / "unet")
    [file] = (tmp_path / "unet").glob("*.safetensors")
    save_file({key: tensor + 1 for key, tensor in load_file(file).items()}, file)
    sources = {"lcm": str(published / "lcm"), "clip": str(published / "clip"), "sd15": str(tmp_path)}
    _, params, frozen = begin(**sources)
    assert_new_encoders(params, {path: weight + 1 for path, weight in frozen.items()})


def test_random_weights_are_of_the_seed():
    first, again, other = (begin(random="miniature", seed=seed) for seed in (0, 0, 1))
    assert_equal(again[2], first[2])
    path = "unet.conv_in.kernel"
    assert (other[2][path] != first[2][path]).any()
    assert_new_encoders(first[1], first[2])


def test_only_frozen_weights_are_held_in_the_compute_dtype(folder):
    _, params, frozen = begin(dtype="bfloat16", model=str(folder / "model"))
    assert {str(weight.dtype) for weight in params.values()} == {"float32"}
    assert {str(weight.dtype) for weight in frozen.values()} == {"bfloat16"}


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ({"model": "nowhere"}, "nowhere: not a model folder"),
        ({"lcm": "nowhere", "clip": "nowhere"}, "nowhere"),
    ],
)
def test_what_is_not_there_is_named(start, words):
    with pytest.raises(InterLCMError, match=words):
        begin(**start)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"batch_size": 6, "accumulate": 4}, "batch_size is 6, but must be a multiple of accumulate, 4"),
        ({"start": StartConfig()}, "of start.model, start.random and start.lcm none is given"),
        ({"start": StartConfig(lcm="a/b")}, "start.clip must be"),
        ({"seed": -1}, "seed is -1"),
        ({"start": StartConfig(random="small", without=("visual_encoder", "spatial_encoder"))}, "start.without is"),
        ({"run": RunConfig(keep=0), "mesh": MeshConfig(data=-1)}, "mesh.data is -1, .*; run.keep is 0, but must be at"),
    ],
)
def test_a_configuration_that_does_not_fit_names_its_fields(changes, words):
    config = dataclasses.replace(TrainConfig(start=StartConfig(random="miniature")), **changes)
    with pytest.raises(InterLCMError, match=words):
        config.check()


def test_devices_that_do_not_divide_are_an_error():
    with pytest.raises(InterLCMError, match=r"mesh.data 3 x mesh.fsdp 2 doesn't make the 8 devices"):
        make_mesh(MeshConfig(data=3, fsdp=2))
