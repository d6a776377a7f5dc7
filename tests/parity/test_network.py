"""Single networks, loaded from the folders that diffusers and transformers save."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from interlcm_jax import InterLCMError
from interlcm_jax.convert.network import load_published, read_network_config
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.models.clip_vision import CLIPVision
from interlcm_jax.models.controlnet import ControlNet
from interlcm_jax.models.unet import UNet2DCondition, UNetConfig
from interlcm_jax.models.vae import AutoencoderKL
from interlcm_jax.models.weights import flat_weights
from tests.parity import release
from tests.parity.bridge import NETWORK, assert_close, nhwc, run

CONFIG = ModelConfig.miniature()


def test_a_vae_in_a_subfolder(tmp_path):
    theirs = release.vae(CONFIG)
    theirs.save_pretrained(tmp_path / "vae")
    ours = load_published(AutoencoderKL, str(tmp_path), "vae")
    latents = torch.randn((1, 4, 4, 6), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs.decode(latents).sample
    assert_close(run(ours, nhwc(latents), method="decode"), expected, NETWORK)


@pytest.mark.parametrize(
    ("kind", "build"),
    [(UNet2DCondition, release.unet), (ControlNet, release.spatial_encoder), (CLIPVision, release.clip_vision)],
)
def test_every_kind_and_its_options(tmp_path, kind, build):
    build(CONFIG).save_pretrained(tmp_path)
    ours = load_published(kind, tmp_path, dtype="bfloat16", param_dtype="float32", remat=True)
    assert {weight.get_value().dtype for weight in flat_weights(ours).values()} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers_per_block": [1, 1], "transformer_layers_per_block": [1, 1], "attention_head_dim": [2, 2]}, None),
        ({"only_cross_attention": [False, False], "time_embedding_dim": 64}, None),
        ({"time_embedding_dim": 96}, "time_embedding_dim=96 .only 64 is implemented"),
        ({"layers_per_block": [1, 2]}, r"layers_per_block=\[1, 2\] .must be int"),
        ({"only_cross_attention": [True, True]}, "only_cross_attention=True"),
    ],
)
def test_settings_for_each_block(tmp_path, changes, message):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**CONFIG.unet.to_json(), **changes}))
    if message is None:
        assert read_network_config(UNetConfig, path) == CONFIG.unet
    else:
        with pytest.raises(InterLCMError, match=rf"config\.json: .*{message}"):
            read_network_config(UNetConfig, path)


def test_attention_of_a_vae_published_as_convolutions(tmp_path):
    theirs = release.vae(CONFIG)
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    for key in [key for key in state if ".to_" in key and key.endswith("weight")]:
        state[key.replace("to_q", "query")] = state.pop(key)[:, :, None, None]
    save_file(state, file)
    ours = load_published(AutoencoderKL, tmp_path)
    for side in ("encoder", "decoder"):
        expected = getattr(theirs, side).mid_block.attentions[0]
        found = getattr(ours, side).mid_block.attentions[0]
        for name, layer in (("to_q", expected.to_q), ("to_k", expected.to_k), ("to_v", expected.to_v)):
            np.testing.assert_array_equal(getattr(found, name).kernel.get_value(), layer.weight.detach().numpy().T)


def test_a_pipelines_folder_and_a_file(tmp_path):
    release.vae(CONFIG).save_pretrained(tmp_path / "vae")
    with pytest.raises(InterLCMError, match="no single network; name one of its subfolders: vae"):
        load_published(AutoencoderKL, tmp_path)
    loaded = load_published(AutoencoderKL, tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    assert loaded.config == CONFIG.vae


def test_a_revision_is_asked_of_the_hub(monkeypatch, tmp_path):
    release.vae(CONFIG).save_pretrained(tmp_path / "vae")
    asked = []
    monkeypatch.setattr(
        "interlcm_jax.convert.network.resolve",
        lambda source, select, revision=None: asked.append((source, revision)) or tmp_path,
    )
    load_published(AutoencoderKL, "someone/some-model", "vae", revision="v2")
    assert asked == [("someone/some-model", "v2")]


def test_a_config_that_asks_for_more_is_refused(tmp_path):
    theirs = release.vae(CONFIG)
    theirs.register_to_config(shift_factor=0.1)
    theirs.save_pretrained(tmp_path)
    with pytest.raises(InterLCMError, match=r"config\.json.*shift_factor=0\.1"):
        load_published(AutoencoderKL, tmp_path)
