"""Folders and files that PyTorch's libraries save, read by us, and ours read by them."""

import pytest
import torch
from diffusers import AutoencoderKL
from transformers import CLIPVisionConfig, CLIPVisionModel

from interlcm_jax.convert.checkpoints import TRANSFORMERS, read_weights
from interlcm_jax.convert.writers import write_folder, write_torch
from tests.parity.test_checkpoints import assert_same, example_state


def tiny_vae():
    return AutoencoderKL(block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
                         up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, layers_per_block=1)  # fmt: skip


def tiny_clip():
    return CLIPVisionModel(
        CLIPVisionConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                         image_size=32, patch_size=16)
    )  # fmt: skip


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("size", ["10GB", "40KB"])
@pytest.mark.parametrize("safe", [True, False])
def test_folders_that_diffusers_saves(tmp_path, safe, size, variant):
    vae = tiny_vae()
    vae.save_pretrained(tmp_path, safe_serialization=safe, max_shard_size=size, variant=variant)
    assert (len(list(tmp_path.glob("*-of-*"))) > 1) == (size == "40KB")
    assert_same(read_weights(tmp_path, variant=variant), vae.state_dict())
    assert_same(read_weights(tmp_path), vae.state_dict())


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("size", ["10GB", "40KB"])
def test_folders_that_transformers_saves(tmp_path, size, variant):
    clip = tiny_clip()
    clip.save_pretrained(tmp_path, max_shard_size=size, variant=variant)
    assert (len(list(tmp_path.glob("*-of-*"))) > 1) == (size == "40KB")
    assert clip.state_dict().keys() == read_weights(tmp_path, TRANSFORMERS, variant).keys()
    assert_same(read_weights(tmp_path, TRANSFORMERS, variant), clip.state_dict())


def test_older_transformers_folders_hold_a_pickle(tmp_path):
    torch.save(example_state(), tmp_path / "pytorch_model.bin")
    assert_same(read_weights(tmp_path, TRANSFORMERS), example_state())


def test_written_torch_files_are_the_releases_form(tmp_path):
    torch.save(example_state(), tmp_path / "a.pth")
    weights = read_weights(tmp_path / "a.pth")
    write_torch(tmp_path / "b.pth", weights)
    loaded = torch.load(tmp_path / "b.pth", weights_only=True)
    assert loaded.keys() == {"params", "params_ema"}
    for key, tensor in example_state().items():
        assert loaded["params_ema"][key].dtype == tensor.dtype
        assert loaded["params_ema"][key].is_contiguous()
        assert torch.equal(loaded["params_ema"][key], tensor)
        assert loaded["params"][key].data_ptr() == loaded["params_ema"][key].data_ptr()
    write_torch(tmp_path / "c.pth", weights, wrappers=())
    assert torch.load(tmp_path / "c.pth", weights_only=True).keys() == example_state().keys()


def test_written_folders_load_in_diffusers_and_transformers(tmp_path):
    for model, stem in ((tiny_vae(), "diffusion_pytorch_model"), (tiny_clip(), TRANSFORMERS)):
        model.save_pretrained(tmp_path / "theirs", safe_serialization=True)
        weights = read_weights(tmp_path / "theirs", stem)
        config = dict(model.config) if stem != TRANSFORMERS else model.config.to_dict()
        write_folder(tmp_path / stem, config, weights, stem)
        loaded, info = type(model).from_pretrained(tmp_path / stem, output_loading_info=True)
        assert not any(info.values())
        for key, tensor in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], tensor)
