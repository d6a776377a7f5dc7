"""`interlcm convert` on files that are damaged, wrong or of another format: what is refused, and how it is said."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from interlcm_jax.files.safetensors import open_safetensors
from interlcm_jax.model_folder import ModelConfig
from tests.parity.release_files import (
    CLIP,
    SPATIAL,
    UNET,
    VAE,
    VISUAL,
    convert,
    edit_json,
    load,
    rewrite,
    save,
    shard,
)


@pytest.fixture
def refuses(release, tmp_path, capsys):
    """Runs `convert`, which must refuse: exit code 2, a message with all that is expected, and nothing left behind."""

    def run(*expected, options=(), **sources):
        before = sorted(tmp_path.iterdir())
        assert convert(release, tmp_path / "out" / "model", *options, **sources) == 2
        error = capsys.readouterr().err
        for text in expected:
            assert str(text) in error, error
        assert "Traceback" not in error
        left = [path for path in (tmp_path / "out").rglob("*")] if (tmp_path / "out").exists() else []
        assert not left
        assert [path for path in sorted(tmp_path.iterdir()) if path.name != "out"] == before

    return run


ONE_OF_EACH = [
    (UNET, "lcm/unet", "conv_in.weight"),
    (VAE, "lcm/vae", "decoder.conv_in.weight"),
    (CLIP, "clip", "encoder.layers.0.mlp.fc1.weight"),
    (SPATIAL, SPATIAL, "controlnet_mid_block.weight"),
    (VISUAL, VISUAL, "blocks.2.conv1.bias"),
]


@pytest.mark.parametrize(("file", "named", "key"), ONE_OF_EACH)
def test_keys_that_do_not_fit(release, refuses, file, named, key):
    def change(state):
        state["blocks.2.stray" if file == VISUAL else "stray"] = torch.zeros(1)
        [found] = [name for name in state if name.endswith(key)]
        del state[found]
        other = next(name for name, tensor in state.items() if name.endswith("bias") and "stray" not in name)
        state[other] = torch.zeros(len(state[other]) + 1)
        expected.append(f"{other} ({len(state[other])},) instead of ({len(state[other]) - 1},)")

    expected = []
    rewrite(release / file, change)
    counts = ("1 missing keys: ", "1 unexpected keys: ", "1 mis-shaped keys: ")
    refuses(release / named, *counts, key, "stray", *expected, "is it the right file?")


def test_a_key_under_its_old_name_and_its_new_one(release, refuses):
    def change(state):
        for side in ("encoder", "decoder"):
            prefix = f"{side}.mid_block.attentions.0"
            state[f"{prefix}.query.weight"] = state[f"{prefix}.to_q.weight"].clone()

    rewrite(release / VAE, change)
    key = "mid_block.attentions.0.to_q.weight"
    refuses(release / "lcm/vae", "2 duplicate keys", f"decoder.{key}", f"encoder.{key}")


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_text(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\n")


def corrupt_header(path):
    content = bytearray(path.read_bytes())
    content[8:16] = b"\xff" * 8
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "damage", "gist"),
    [
        (UNET, cut, "not a whole safetensors file"),
        (UNET, corrupt_header, "not a whole safetensors file"),
        (VAE, write_text, "not a whole safetensors file"),
        (CLIP, cut, "not a whole safetensors file"),
        (CLIP, write_text, "not a whole safetensors file"),
        (VISUAL, cut, "not a whole PyTorch file"),
        (VISUAL, write_text, "not a PyTorch file"),
        (SPATIAL, write_text, "not a PyTorch file"),
        (SPATIAL, Path.unlink, "no such file or folder"),
        (UNET, Path.unlink, "no diffusion_pytorch_model weights"),
        (CLIP, Path.unlink, "no model weights"),
        ("lcm/unet/config.json", Path.unlink, "no such file"),
        ("clip/config.json", write_text, "not JSON"),
        ("lcm/scheduler/scheduler_config.json", write_text, "not JSON"),
    ],
)
def test_damaged_and_absent_files(release, refuses, file, damage, gist):
    damage(release / file)
    folder = gist.startswith("no ") and "weights" in gist
    refuses(f"{(release / file).parent if folder else release / file}: {gist}")


class Malicious:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("file", [VISUAL, SPATIAL, "lcm/unet/diffusion_pytorch_model.bin"])
def test_code_in_a_pickle_never_runs(release, refuses, tmp_path, file):
    if file.endswith(".bin"):
        (release / UNET).unlink()
    trace = tmp_path / "ran"
    torch.save({"params_ema": {"weight": torch.ones(1)}, "extra": Malicious(trace)}, release / file)
    refuses(release / file, "its pickle would run code", "mkdir", "so it was not loaded")
    assert not trace.exists()


@pytest.mark.parametrize("file", [UNET, CLIP])
def test_an_index_that_names_a_missing_shard(release, refuses, file):
    shard(release / file, lost=[2])
    refuses(f"{release / file}.index.json", f"1 missing shards: {Path(file).stem}-00002-of-00002.safetensors")


@pytest.mark.parametrize(("file", "named", "key"), ONE_OF_EACH)
def test_weights_that_are_not_finite(release, refuses, tmp_path, file, named, key):
    damaged = []

    def change(state):
        [found] = [name for name in state if name.endswith(key)]
        state[found].view(-1)[-1] = float("nan")
        damaged.append(found)
        state[other := next(name for name in state if name.endswith("bias") and name != found)][0] = float("inf")
        damaged.append(other)

    rewrite(release / file, change)
    refuses(release / named, "2 weights with NaN or infinity: ")
    assert convert(release, tmp_path / "model", "--allow-nan") == 0
    broken = [
        path.stem
        for path in (tmp_path / "model").glob("*.safetensors")
        if not all(np.isfinite(tensor.read()).all() for tensor in open_safetensors(path).values())
    ]
    networks = {UNET: "unet", VAE: "vae", CLIP: "clip_vision", SPATIAL: "spatial_encoder", VISUAL: "visual_encoder"}
    assert broken == [networks[file]]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_the_output_exists(files, tmp_path, capsys, kind):
    out = tmp_path / "model"
    out.mkdir() if kind == "folder" else out.write_text("text")
    assert convert(files, out) == 2
    assert f"{out}: exists already" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [out]
    assert out.read_text() == "text" if kind == "file" else not list(out.iterdir())


def test_the_output_cannot_be_made(files, tmp_path, capsys):
    (tmp_path / "file").write_text("text")
    assert convert(files, tmp_path / "file" / "model") == 2
    assert f"{tmp_path / 'file' / 'model'}: the folder can't be made" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "gist"),
    [
        (["--task", "sharpening"], "'sharpening'"),
        (["--num-network-calls", "0"], "num_network_calls is 0"),
        (["--num-network-calls", "50"], "num_network_calls is 50"),
        (["--image-size", "60"], "image_size is 60, but must be a multiple of 8"),
        (["--variant", "fp16"], "of variant fp16"),
    ],
)
def test_options_that_are_none(refuses, options, gist):
    refuses(gist, options=options)


@pytest.mark.parametrize("source", ["lcm", "clip"])
def test_hub_names_without_a_connection(refuses, source):
    refuses("someone/some-model: HF_HUB_OFFLINE forbids", **{source: "someone/some-model"})


@pytest.mark.parametrize("source", ["lcm", "clip", "visual_encoder", "spatial_encoder"])
def test_paths_that_are_not_there(refuses, tmp_path, source):
    refuses(f"{tmp_path / 'absent'}: no such file or folder", **{source: tmp_path / "absent"})


@pytest.mark.parametrize(
    ("file", "settings", "gists"),
    [
        (
            "lcm/unet/config.json",
            {"addition_embed_type": "text_time", "use_linear_projection": True},
            ["addition_embed_type='text_time'", "use_linear_projection=True"],
        ),
        ("lcm/unet/config.json", {"attention_head_dim": [5, 10]}, ["attention_head_dim=[5, 10] (must be int)"]),
        (
            "lcm/unet/config.json",
            {"transformer_layers_per_block": [1, 2]},
            ["transformer_layers_per_block=[1, 2]"],
        ),
        (
            "lcm/unet/config.json",
            {"down_block_types": ["AttnDownBlock2D", "DownBlock2D"]},
            ["down_block_types", "AttnDownBlock2D"],
        ),
        ("lcm/vae/config.json", {"use_quant_conv": False}, ["use_quant_conv=False"]),
        ("lcm/vae/config.json", {"shift_factor": 0.1}, ["shift_factor=0.1"]),
        ("clip/config.json", {"hidden_act": "gelu"}, ["hidden_act='gelu'"]),
        ("lcm/scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}, ["v_prediction"]),
    ],
)
def test_configs_that_ask_for_another_network(release, refuses, file, settings, gists):
    edit_json(release / file, **settings)
    refuses(release / file, *gists)


def test_a_clip_of_another_width(release, refuses):
    config = transformers.CLIPVisionConfig(
        hidden_size=96, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4, image_size=32, patch_size=8
    )
    transformers.CLIPVisionModel(config).save_pretrained(release / "wide")
    refuses("the Visual Encoder's width and the UNet's context (96 and 48)", clip=release / "wide")


def test_files_in_each_others_place(release, refuses):
    unet, spatial, visual = "a UNet", "a ControlNet, as InterLCM's Spatial Encoder is", "InterLCM's Visual Encoder"
    for file, found, source, wanted in (
        (UNET, unet, "spatial_encoder", spatial),
        (SPATIAL, spatial, "visual_encoder", visual),
        (VISUAL, visual, "spatial_encoder", spatial),
    ):
        refuses(f"{release / file}: this looks like {found}; wanted is {wanted}", **{source: release / file})


def test_folders_in_each_others_place(release, refuses):
    refuses("no pipeline's folder, as unet and vae are missing", lcm=release / "clip")
    refuses("no pipeline's folder", "name the folder that holds unet/ and vae/", lcm=release / "lcm" / "unet")
    refuses("no pipeline's folder", "it holds clip", lcm=release)
    refuses("no model weights", "networks are in its subfolders unet, vae", clip=release / "lcm")


@pytest.mark.parametrize("whole", [True, False])
def test_a_spatial_encoder_as_the_unet(release, refuses, whole):
    state = load(release / SPATIAL)
    save(release / UNET, state)
    if whole:
        config = ModelConfig.miniature().spatial_encoder.to_json() | {"_class_name": "ControlNetModel"}
        (release / "lcm/unet/config.json").write_text(json.dumps(config))
        refuses(release / "lcm/unet/config.json", "_class_name='ControlNetModel'")
    else:
        refuses(f"{release / 'lcm/unet'}: this looks like a ControlNet", "wanted is a UNet")
