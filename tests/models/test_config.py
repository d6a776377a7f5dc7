"""Sizes that no network can have are refused in words, before anything is built of them."""

import pytest

from interlcm_jax.diffusion.schedule import ScheduleConfig
from interlcm_jax.errors import InterLCMError
from interlcm_jax.models.clip_vision import CLIPVisionConfig
from interlcm_jax.models.controlnet import ControlNetConfig
from interlcm_jax.models.unet import UNetConfig
from interlcm_jax.models.vae import VAEConfig
from interlcm_jax.models.visual_encoder import VisualEncoderConfig

WIDTHS = "block_out_channels"


@pytest.mark.parametrize(
    ("kind", "field", "value", "message"),
    [
        (UNetConfig, "norm_num_groups", 0, "norm_num_groups is 0, but must be an integer from 1 to 65536"),
        (UNetConfig, "norm_num_groups", -4, "norm_num_groups is -4"),
        (UNetConfig, "norm_num_groups", 5, "block_out_channels has 16, which norm_num_groups=5 doesn't divide"),
        (UNetConfig, "attention_head_dim", 3, "block_out_channels has 16, which attention_head_dim=3 doesn't divide"),
        (UNetConfig, "layers_per_block", 10**9, "layers_per_block is 1000000000, but must be an integer from 1 to 256"),
        (UNetConfig, "transformer_layers_per_block", 10**9, "from 1 to 256"),
        (UNetConfig, "transformer_layers_per_block", 200, r"400 transformer blocks on the way down (at most 256)"),
        (UNetConfig, WIDTHS, [16, -32], "block_out_channels is -32"),
        (UNetConfig, WIDTHS, [16, 10**12], "block_out_channels is 1000000000000"),
        (UNetConfig, WIDTHS, [], "block_out_channels has 0 entries, but must have from 1 to 16"),
        (UNetConfig, "norm_eps", 0.0, "norm_eps is 0.0, but must be a number"),
        (UNetConfig, "norm_eps", float("nan"), "norm_eps is nan"),
        (UNetConfig, "down_block_types", ["DownBlock2D"], "only 2 of CrossAttnDownBlock2D and DownBlock2D"),
        (ControlNetConfig, "conditioning_embedding_out_channels", [0], "conditioning_embedding_out_channels is 0"),
        (VAEConfig, "norm_num_groups", 7, "block_out_channels has 8, which norm_num_groups=7 doesn't divide"),
        (VAEConfig, "scaling_factor", -1.0, "scaling_factor is -1.0"),
        (VAEConfig, "decoder_block_out_channels", [8, 16, 24, 26], "decoder_block_out_channels has 26, which"),
        (CLIPVisionConfig, "patch_size", 0, "patch_size is 0, but must be an integer from 1 to 65536"),
        (CLIPVisionConfig, "patch_size", 64, "patch_size is 64, but the image_size 32"),
        (CLIPVisionConfig, "num_attention_heads", 7, "hidden_size has 48, which num_attention_heads=7 doesn't divide"),
        (CLIPVisionConfig, "num_hidden_layers", 10**9, "num_hidden_layers is 1000000000"),
        (VisualEncoderConfig, "norm_num_groups", 5, "block_out_channels has 16, which norm_num_groups=5"),
        (ScheduleConfig, "beta_start", "0.00085", "beta_start is '0.00085', but must be a number from 0 to 1"),
        (ScheduleConfig, "num_train_timesteps", 10**12, "num_train_timesteps is 1000000000000"),
        (ScheduleConfig, "num_train_timesteps", 20, "original_inference_steps must be at most num_train_timesteps, 20"),
        (ScheduleConfig, "timestep_scaling", None, "timestep_scaling is None"),
    ],
)
def test_a_size_out_of_its_range_is_named_with_its_range(kind, field, value, message):
    published = (ScheduleConfig() if kind is ScheduleConfig else kind.miniature()).to_json()
    if kind is VAEConfig:
        published = {key: each for key, each in published.items() if not key.endswith("block_types")}
    with pytest.raises(InterLCMError) as error:
        kind.from_json({**published, field: value})
    assert message in str(error.value)


def test_all_that_is_wrong_is_named():
    with pytest.raises(InterLCMError, match=r"layers_per_block is 0.*norm_num_groups is 0"):
        UNetConfig(layers_per_block=0, norm_num_groups=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"in_channels": "4"}, r"in_channels='4' \(must be int\)"),
        ({"layers_per_block": 2.0}, r"layers_per_block=2\.0"),
        ({"block_out_channels": 320}, r"block_out_channels=320 \(must be tuple"),
        ({"block_out_channels": [320] * 4}, r"block_out_channels=\[320, 320, 320, 320\] \(must be tuple"),
    ],
)
def test_a_size_of_another_type(settings, message):
    with pytest.raises(InterLCMError, match=message):
        UNetConfig(**settings)


@pytest.mark.parametrize("config", [[], None, "unet/config.json"])
def test_what_is_no_parsed_config(config):
    with pytest.raises(InterLCMError, match=r"UNetConfig: a .* instead of a config"):
        UNetConfig.from_json(config)
