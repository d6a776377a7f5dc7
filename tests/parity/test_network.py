"""Single networks, loaded from the folders that diffusers and transformers save."""

import jax.numpy as jnp
import pytest
import torch

from interlcm_jax import InterLCMError
from interlcm_jax.convert.network import load_published
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.models.clip_vision import CLIPVision
from interlcm_jax.models.controlnet import ControlNet
from interlcm_jax.models.unet import UNet2DCondition
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


def test_a_config_that_asks_for_more_is_refused(tmp_path):
    theirs = release.vae(CONFIG)
    theirs.register_to_config(shift_factor=0.1)
    theirs.save_pretrained(tmp_path)
    with pytest.raises(InterLCMError, match=r"config\.json.*shift_factor=0\.1"):
        load_published(AutoencoderKL, tmp_path)
