"""`interlcm convert` on files that are damaged, wrong or of another format: what is refused, and how it is said."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from interlcm_jax.cli.main import main
from interlcm_jax.model_folder import NETWORKS, ModelConfig
from interlcm_jax.safetensors_file import open_safetensors
from tests.parity.release import Release

UNET = "lcm/unet/diffusion_pytorch_model.safetensors"
VAE = "lcm/vae/diffusion_pytorch_model.safetensors"
CLIP = "clip/model.safetensors"
VISUAL, SPATIAL = "visual_encoder.pth", "spatial_encoder.pth"
OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The release's files, miniature."""
    folder = tmp_path_factory.mktemp("release")
    Release.random(ModelConfig.miniature()).save(folder)
    return folder


@pytest.fixture(scope="module")
def converted(files, tmp_path_factory):
    """The model folder that whole files give."""
    out = tmp_path_factory.mktemp("converted") / "model"
    assert convert(files, out) == 0
    return out


@pytest.fixture
def release(files, tmp_path):
    """A copy to break."""
    return shutil.copytree(files, tmp_path / "release")


def convert(release, out, *options, **sources):
    """Runs the command; `sources` replaces some of the files by name."""
    paths = {
        "lcm": release / "lcm",
        "clip": release / "clip",
        "visual_encoder": release / VISUAL,
        "spatial_encoder": release / SPATIAL,
        **sources,
    }
    named = [str(part) for name, path in paths.items() for part in (f"--{name.replace('_', '-')}", path)]
    return main(["convert", *named, "--image-size", "64", "-o", str(out), *options])


def load(path):
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, weights_only=True)["params_ema"]


def save(path, state):
    if path.suffix == ".safetensors":
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, path, {"format": "pt"})
    else:
        torch.save({"params_ema": state}, path)


def rewrite(path, change):
    state = load(path)
    change(state)
    save(path, state)


def edit_json(path, **settings):
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


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


def shard(path, lost=()):
    """Splits a file into two shards and an index, as the libraries do."""
    state = load(path)
    keys = sorted(state)
    places = {}
    for number, part in enumerate((keys[::2], keys[1::2]), start=1):
        name = f"{path.stem}-{number:05}-of-00002{path.suffix}"
        save(path.parent / name, {key: state[key] for key in part})
        places |= dict.fromkeys(part, name)
    for number in lost:
        (path.parent / f"{path.stem}-{number:05}-of-00002{path.suffix}").unlink()
    (path.parent / f"{path.name}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    path.unlink()


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
    refuses(release / UNET, "missing keys: controlnet_", "unexpected keys: ", spatial_encoder=release / UNET)
    refuses(release / SPATIAL, "unexpected keys: ", visual_encoder=release / SPATIAL)
    refuses(release / VISUAL, "unexpected keys: blocks.", spatial_encoder=release / VISUAL)
    refuses(release / "clip", "no such file", lcm=release / "clip")


@pytest.mark.parametrize("whole", [True, False])
def test_a_spatial_encoder_as_the_unet(release, refuses, whole):
    state = load(release / SPATIAL)
    save(release / UNET, state)
    if whole:
        config = ModelConfig.miniature().spatial_encoder.to_json() | {"_class_name": "ControlNetModel"}
        (release / "lcm/unet/config.json").write_text(json.dumps(config))
        refuses(release / "lcm/unet/config.json", "_class_name='ControlNetModel'")
    else:
        refuses(release / "lcm/unet", "missing keys: ", "up_blocks.0", "unexpected keys: controlnet_")


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
