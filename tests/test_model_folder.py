"""The model folder: its config, every way it can be broken, and weights loaded straight onto a mesh."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from interlcm_jax import InterLCM, InterLCMError, WeightsError, model_folder
from interlcm_jax.files.safetensors import from_array, open_safetensors, write_safetensors
from interlcm_jax.model_folder import NETWORKS, ModelConfig, load_network, read_config, write_config
from interlcm_jax.models.clip_vision import CLIPVision
from interlcm_jax.models.weights import abstract, flat_weights
from tests.miniature import miniature_model

DEVICES = 8  # see conftest
SHARDED = 1e-5  # maximum absolute difference of a sharded model's restoration


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    miniature_model().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to break."""
    return shutil.copytree(saved, tmp_path / "model")


def rewrite(path, change):
    """Rewrites a safetensors file after `change` has been at its arrays."""
    arrays = {name: tensor.read() for name, tensor in open_safetensors(path).items()}
    change(arrays)
    write_safetensors(path, {name: from_array(array, path) for name, array in arrays.items()})


def edit_config(folder, change):
    settings = json.loads((folder / "config.json").read_text())
    change(settings)
    (folder / "config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("config", [ModelConfig.miniature(), ModelConfig.released()], ids=["miniature", "released"])
def test_configs_are_read_as_they_were_written(tmp_path, config):
    origin = {"unet": {"origin": "ünet", "license": "MIT"}}
    config = dataclasses.replace(
        config,
        num_network_calls=1,
        skipped_steps=0,
        task="colorization",
        color_fix="none",
        guidance_scale=7.5,
        weights=origin,
    )
    config.check()
    write_config(tmp_path, config)
    assert read_config(tmp_path) == config


def test_the_folder_holds_a_config_and_a_file_for_each_network(saved):
    assert {path.name for path in saved.iterdir()} == {"config.json", *(f"{name}.safetensors" for name in NETWORKS)}
    assert read_config(saved) == miniature_model().config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "not a model folder .*interlcm convert"),
        ("", "Expecting value"),
        ("[]", "config.json"),
        ('{"model_type": "clip"}', "format is None, but this version reads 1"),
        ('{"format": 2}', "format is 2, but this version reads 1"),
        ('{"format": 1}', "no network unet, spatial_encoder, clip_vision, vae, visual_encoder"),
        ('{"format": 1, "networks": null}', "config.json"),
        ('{"format": 1, "networks": {"unet": 3}}', "no network spatial_encoder, clip_vision, vae, visual_encoder"),
        ("\udcff\udcfe", "config.json"),
    ],
)
def test_a_config_that_is_none(tmp_path, text, message):
    if text is not None:
        (tmp_path / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InterLCMError, match=message) as error:
        InterLCM.from_pretrained(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_a_file_in_the_folders_place(tmp_path):
    (tmp_path / "model").write_text("text")
    with pytest.raises(InterLCMError, match="not a model folder"):
        InterLCM.from_pretrained(tmp_path / "model")
    with pytest.raises(InterLCMError, match="no such file or folder"):
        InterLCM.from_pretrained(tmp_path / "absent")


@pytest.mark.parametrize(
    ("network", "setting", "value", "message"),
    [
        ("clip_vision", "hidden_size", 96, r"CLIP's width and the Visual Encoder's \(96 and 48\)"),
        ("clip_vision", "patch_size", 16, r"CLIP's tokens and the Visual Encoder's \(5 and 17\)"),
        ("unet", "cross_attention_dim", 96, r"Visual Encoder's width and the UNet's context \(48 and 96\)"),
        ("spatial_encoder", "block_out_channels", [16, 64], "skip connections and the Spatial Encoder's"),
        ("spatial_encoder", "conditioning_embedding_out_channels", [4, 8], r"conditioning stack's .* \(8 and 2\)"),
        ("vae", "latent_channels", 16, r"the VAE's latents and the UNet's \(16 and 4\)"),
        ("vae", "block_out_channels", [8, 16], "downsampling"),
        ("vae", "block_out_channels", 8, "config.json"),
        ("unet", "use_linear_projection", True, "use_linear_projection=True"),
        (None, "num_network_calls", 0, "num_network_calls is 0"),
        (None, "skipped_steps", -1, "skipped_steps is -1"),
        (None, "num_network_calls", "three", "config.json"),
        (None, "image_size", 60, "image_size is 60, but must be a multiple of 8"),
        (None, "task", "sharpening", "task is 'sharpening'"),
        (None, "color_fix", "sepia", "color_fix is 'sepia'"),
        (None, "leave_sharp", "0.2", "leave_sharp is '0.2'"),
        (None, "leave_sharp", -1, "leave_sharp is -1"),
    ],
)
def test_settings_that_do_not_fit_each_other(folder, network, setting, value, message):
    def change(settings):
        part = settings["networks"][network] if network else settings
        if network == "vae":
            part.pop("down_block_types")
            part.pop("up_block_types")
        part[setting] = value

    edit_config(folder, change)
    with pytest.raises(InterLCMError, match=message) as error:
        InterLCM.from_pretrained(folder)
    assert str(folder / "config.json") in str(error.value)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_networks_file_is_missing(folder, network):
    (folder / f"{network}.safetensors").unlink()
    with pytest.raises(WeightsError, match=rf"{network}\.safetensors: no such file\n.*isn't whole"):
        InterLCM.from_pretrained(folder)


def test_every_key_that_does_not_fit_is_in_one_error(folder):
    path = folder / "clip_vision.safetensors"

    def change(arrays):
        for name in ("embeddings.class_embedding", "post_layernorm.scale"):
            del arrays[name]
        arrays["text_model.stray"] = arrays["another.stray"] = np.zeros(2, np.float32)
        arrays["post_layernorm.bias"] = np.zeros((48, 1), np.float32)
        arrays["embeddings.position_embedding"] = np.zeros((16, 48), np.float32)
        arrays["pre_layrnorm.bias"] = np.zeros(48, np.int32)

    rewrite(path, change)
    with pytest.raises(WeightsError) as error:
        InterLCM.from_pretrained(folder)
    text = str(error.value)
    assert text.startswith(f"{path}:\n")
    assert "2 missing keys: embeddings.class_embedding, post_layernorm.scale\n" in text
    assert "2 unexpected keys: another.stray, text_model.stray\n" in text
    assert "2 mis-shaped keys: " in text
    assert "post_layernorm.bias (48, 1) instead of (48,)" in text
    assert "embeddings.position_embedding (16, 48) instead of (17, 48)" in text
    assert "1 keys that aren't floating point: pre_layrnorm.bias (int32)" in text
    assert "doesn't fit the sizes in config.json" in text


@pytest.mark.parametrize("content", ["truncated", "text", "empty"])
def test_a_file_that_is_not_whole(folder, content):
    path = folder / "vae.safetensors"
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[: len(whole) // 2], "text": b"<html>404</html>", "empty": b""}[content])
    with pytest.raises(WeightsError, match=r"vae\.safetensors: not a whole safetensors file"):
        InterLCM.from_pretrained(folder)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_weights_that_are_not_finite(folder, dtype):
    damaged = {"encoder.layers.0.mlp.fc1.kernel": np.nan, "post_layernorm.bias": -np.inf}

    def change(arrays):
        for name, array in arrays.items():
            arrays[name] = array.astype(jax.numpy.dtype(dtype))
        for name, value in damaged.items():
            arrays[name].reshape(-1)[-1] = value

    rewrite(folder / "clip_vision.safetensors", change)
    with pytest.raises(WeightsError) as error:
        InterLCM.from_pretrained(folder)
    message = f"clip_vision.safetensors: 2 weights with NaN or infinity: {', '.join(sorted(damaged))}"
    assert message in str(error.value)
    weights = flat_weights(InterLCM.from_pretrained(folder, allow_nan=True).networks.clip_vision)
    assert {name for name, w in weights.items() if not np.isfinite(w.get_value()).all()} == damaged.keys()


@pytest.fixture(scope="module")
def mesh():
    return Mesh(np.array(jax.devices()), ("fsdp",))


def splits(mesh):
    """A rule that splits the last axis of large weights and copies the others to every device."""

    def rule(path, shape):
        large = len(shape) > 1 and shape[-1] % mesh.size == 0 and np.prod(shape) >= 4096
        return NamedSharding(mesh, PartitionSpec(*[None] * (len(shape) - 1), "fsdp" if large else None))

    return rule


def is_split(sharding):
    return "fsdp" in sharding.spec


@pytest.fixture
def reads(monkeypatch):
    """The file, key, shape and index of every read of a weight."""
    log = []

    def recording(path):
        def watched(key, tensor):
            def load(index):
                log.append((path.stem, key, tensor.shape, index))
                return tensor.read(index)

            return dataclasses.replace(tensor, load=load)

        return {key: watched(key, tensor) for key, tensor in open_safetensors(path).items()}

    monkeypatch.setattr(model_folder, "open_safetensors", recording)
    return log


def test_each_device_reads_and_holds_its_own_slices(saved, mesh, reads):
    rule = splits(mesh)
    asked = {}

    def recorded(path, shape):
        asked[path] = shape
        return rule(path, shape)

    model = InterLCM.from_pretrained(saved, sharding=recorded)
    expected = flat_weights(miniature_model().networks)
    assert asked == {path: weight.get_value().shape for path, weight in expected.items()}
    split = {path for path, shape in asked.items() if is_split(rule(path, shape))}
    assert 20 < len(split) < len(asked)
    for path, weight in flat_weights(model.networks).items():
        array = weight.get_value()
        shape = array.shape
        held = (*shape[:-1], shape[-1] // DEVICES) if path in split else shape
        assert {shard.device for shard in array.addressable_shards} == set(jax.devices())
        assert {shard.data.shape for shard in array.addressable_shards} == {held}, path
        np.testing.assert_array_equal(array, expected[path].get_value(), err_msg=path)
    for network, key, shape, index in reads:
        if f"{network}.{key}" in split:
            part = np.zeros(shape, np.bool_)[index].size
            assert part * DEVICES == np.prod(shape), (network, key, index)
    assert len([1 for network, key, *_ in reads if f"{network}.{key}" in split]) == len(split) * DEVICES


def test_one_sharding_for_all_weights(saved, mesh):
    everywhere = NamedSharding(mesh, PartitionSpec())
    network = abstract(lambda rngs: CLIPVision(read_config(saved).clip_vision, rngs=rngs))
    load_network(saved, "clip_vision", network, everywhere)
    assert {weight.get_value().sharding for weight in flat_weights(network).values()} == {everywhere}


def test_damage_in_one_devices_slice_is_seen(folder, mesh):
    name = "encoder.layers.0.mlp.fc1.kernel"
    rewrite(folder / "clip_vision.safetensors", lambda arrays: arrays[name].__setitem__((0, -1), np.nan))
    with pytest.raises(WeightsError, match=rf"1 weights with NaN or infinity: {name}"):
        InterLCM.from_pretrained(folder, sharding=splits(mesh))


def test_a_sharded_model_restores_the_same(saved):
    mesh = Mesh(np.array(jax.devices()[:2]), ("fsdp",))  # compiles faster than for eight
    image = np.random.default_rng(0).uniform(-1, 1, (1, 64, 64, 3)).astype(np.float32)
    restored = InterLCM.from_pretrained(saved, sharding=splits(mesh)).restore(image)
    assert restored.sharding.device_set == set(mesh.devices.flat)
    assert np.abs(restored - np.asarray(miniature_model().restore(image))).max() <= SHARDED
