"""The formats that `interlcm convert` takes: each gives the same model folder, bit for bit."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers

from interlcm_jax.files.safetensors import open_safetensors
from interlcm_jax.model_folder import NETWORKS
from tests.parity.release_files import (
    CLIP,
    OLD_ATTENTION,
    SPATIAL,
    UNET,
    VAE,
    VISUAL,
    convert,
    load,
    rewrite,
    save,
    shard,
)


def assert_same_model(out, converted, files=NETWORKS):
    for name in files:
        expected = (converted / f"{name}.safetensors").read_bytes()
        assert (out / f"{name}.safetensors").read_bytes() == expected, name
    configs = [json.loads((folder / "config.json").read_text()) for folder in (out, converted)]
    for config in configs:
        del config["weights"]
    assert configs[0] == configs[1]


def as_bin(path, name):
    torch.save(load(path), path.parent / name)
    path.unlink()


def as_old_vae(state):
    for key in [key for key in state if "attentions.0.to_" in key]:
        renamed = key
        for new, old in OLD_ATTENTION.items():
            renamed = renamed.replace(f".{new}.", f".{old}.")
        state[renamed] = state.pop(key)


def as_full_clip(folder):
    """A whole CLIP, text tower and projections included, in transformers' layout."""
    vision = transformers.CLIPVisionConfig.from_pretrained(folder)
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={**text, "vocab_size": 20}, vision_config=vision.to_dict(), projection_dim=8
    )
    state = load(folder / "model.safetensors")
    full = transformers.CLIPModel(config)
    prefix = "" if any(key.startswith("vision_model.") for key in state) else "vision_model."
    missing, unexpected = full.load_state_dict({prefix + key: tensor for key, tensor in state.items()}, strict=False)
    assert not unexpected
    assert not [key for key in missing if key.startswith("vision_model.") and "position_ids" not in key]
    shutil.rmtree(folder)
    full.save_pretrained(folder)


FORMATS = {
    "bin": lambda folder: (
        as_bin(folder / UNET, "diffusion_pytorch_model.bin"),
        as_bin(folder / VAE, "diffusion_pytorch_model.bin"),
        as_bin(folder / CLIP, "pytorch_model.bin"),
    ),
    "sharded": lambda folder: [shard(folder / file) for file in (UNET, VAE, CLIP)],
    "old attention names": lambda folder: rewrite(folder / VAE, as_old_vae),
    "full CLIP": lambda folder: as_full_clip(folder / "clip"),
    "module. prefix": lambda folder: [
        save(folder / name, {f"module.{key}": tensor for key, tensor in load(folder / name).items()})
        for name in (VISUAL, SPATIAL)
    ],
    "bare state dict": lambda folder: [torch.save(load(folder / name), folder / name) for name in (VISUAL, SPATIAL)],
    "params only": lambda folder: [
        torch.save({"params": load(folder / name)}, folder / name) for name in (VISUAL, SPATIAL)
    ],
    "before PyTorch 1.6": lambda folder: [
        torch.save({"params_ema": load(folder / name)}, folder / name, _use_new_zipfile_serialization=False)
        for name in (VISUAL, SPATIAL)
    ],
}


@pytest.mark.parametrize("form", FORMATS)
def test_formats_that_give_the_same_model(release, converted, tmp_path, form):
    FORMATS[form](release)
    assert convert(release, tmp_path / "model") == 0
    assert_same_model(tmp_path / "model", converted)


def test_trained_weights_as_safetensors(release, converted, tmp_path):
    sources = {name: release / f"{name}.safetensors" for name in ("visual_encoder", "spatial_encoder")}
    for path in sources.values():
        save(path, load(path.with_suffix(".pth")))
    assert convert(release, tmp_path / "model", **sources) == 0
    assert_same_model(tmp_path / "model", converted)


def test_half_precision_stays_half(release, converted, tmp_path):
    for file in (UNET, VAE):
        path = release / file
        half = {key: tensor.half() for key, tensor in load(path).items()}
        save(path.with_suffix(".fp16.safetensors"), half)
    assert convert(release, tmp_path / "full") == 0
    assert_same_model(tmp_path / "full", converted)
    assert convert(release, tmp_path / "half", "--variant", "fp16") == 0
    # CLIP is published in one precision: the variant is the LCM's.
    assert_same_model(tmp_path / "half", converted, ("visual_encoder", "spatial_encoder", "clip_vision"))
    for name in ("unet", "vae"):
        halves, fulls = (open_safetensors(folder / f"{name}.safetensors") for folder in (tmp_path / "half", converted))
        assert halves.keys() == fulls.keys()
        for key, tensor in halves.items():
            assert tensor.dtype == np.float16
            np.testing.assert_array_equal(tensor.read(), fulls[key].read().astype(np.float16))


def as_openai(state):
    """OpenAI's layout, with q, k and v fused."""
    names = {
        "class_embedding": "embeddings.class_embedding",
        "positional_embedding": "embeddings.position_embedding.weight",
        "conv1.weight": "embeddings.patch_embedding.weight",
        **{f"ln_pre.{kind}": f"pre_layrnorm.{kind}" for kind in ("weight", "bias")},
        **{f"ln_post.{kind}": f"post_layernorm.{kind}" for kind in ("weight", "bias")},
    }
    state = {key.removeprefix("vision_model."): tensor for key, tensor in state.items()}
    fused = {}
    for layer in range(2):
        theirs, ours = f"transformer.resblocks.{layer}", f"encoder.layers.{layer}"
        for kind in ("weight", "bias"):
            for new, old in (("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"), ("mlp.c_fc", "mlp.fc1"),
                             ("mlp.c_proj", "mlp.fc2"), ("attn.out_proj", "self_attn.out_proj")):  # fmt: skip
                names[f"{theirs}.{new}.{kind}"] = f"{ours}.{old}.{kind}"
            parts = [state[f"{ours}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            fused[f"visual.{theirs}.attn.in_proj_{kind}"] = torch.cat(parts)
    return {f"visual.{new}": state[old] for new, old in names.items()} | fused


def test_openais_clip(release, converted, tmp_path, monkeypatch):
    # OpenAI's heads are 64 wide, the miniature's 12.
    monkeypatch.setattr("interlcm_jax.convert.clip_vision.OPENAI_HEAD_DIM", 12)
    torch.save(as_openai(load(release / CLIP)), release / "ViT.pt")
    assert convert(release, tmp_path / "model", clip=release / "ViT.pt") == 0
    assert_same_model(tmp_path / "model", converted)
