"""Random damage to files of weights and their settings: each is read, or refused in words of ours, and soon."""

import contextlib
import json
import random
import time

import numpy as np
import pytest

from interlcm_jax.convert import compvis, unet, vae
from interlcm_jax.convert.checkpoints import read_json, read_weights
from interlcm_jax.convert.lora import merge
from interlcm_jax.convert.rules import places, to_jax
from interlcm_jax.convert.visual_encoder import infer_config
from interlcm_jax.convert.writers import write_folder, write_torch
from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.safetensors import from_array, write_safetensors
from interlcm_jax.models.unet import UNet2DCondition, UNetConfig
from interlcm_jax.models.vae import AutoencoderKL, VAEConfig
from interlcm_jax.models.weights import weight_specs

pytestmark = pytest.mark.long

SECONDS, SLOWEST = 8, 2.0
VAE_SPECS = weight_specs(AutoencoderKL, VAEConfig.miniature())
UNET_SPECS = weight_specs(UNet2DCondition, UNetConfig.miniature())
COMPVIS = (
    *["model.diffusion_model.input_blocks.0.0.weight", "model.diffusion_model.input_blocks.1.0.out_layers.3.weight"],
    *["model.diffusion_model.input_blocks.2.0.op.weight", "model.diffusion_model.middle_block.1.proj_in.weight"],
    "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight",
    *["model.diffusion_model.out.2.weight", "control_model.input_hint_block.0.weight"],
    *["control_model.input_hint_block.2.weight", "first_stage_model.encoder.down.0.block.0.conv1.weight"],
    *["first_stage_model.encoder.conv_in.weight", "first_stage_model.decoder.conv_out.weight"],
    "first_stage_model.post_quant_conv.weight",
)
SHAPES = ((), (0,), (1,), (32, 32), (64, 32, 3, 3), (32, 4, 1, 1), (1, 1, 1), (0, 4, 3, 3))


def zeros(specs):
    return {key: from_array(np.zeros(spec.shape, np.float32), "zeros") for key, spec in specs.items()}


def as_torch(specs, table):
    """The network's weights of zeros by PyTorch's keys."""
    return {p.key: from_array(np.zeros(p.shape, np.float32), "zeros") for p in places(specs, table).values()}


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The bytes with a few of them changed, left out, doubled or cut off; more often near the ends."""
    out = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        near = rng.choice((40, 600, len(out)))
        at = rng.choice((rng.randrange(min(near, len(out))), len(out) - 1 - rng.randrange(min(near, len(out)))))
        kind = rng.randrange(5)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at] = rng.randrange(256)
        elif kind == 2:
            del out[at : at + rng.choice((1, 4, 100))]
        elif kind == 3:
            out[at:at] = out[at : at + rng.choice((1, 8, 64))]
        else:
            del out[max(at, 1) :]
        if len(out) < 2:
            return bytes(out)
    return bytes(out)


def runs(seed):
    """Random generators, for a few seconds; each turn must be short."""
    deadline, number = time.monotonic() + SECONDS, 0
    while time.monotonic() < deadline:
        started = time.monotonic()
        yield random.Random(f"{seed} {number}")
        assert time.monotonic() - started < SLOWEST, f"turn {number} of {seed}"
        number += 1
    assert number > 50


def read_all(read):
    """What is read is read to the end, or refused as it should be; any other error ends the test."""
    with contextlib.suppress(InterLCMError):
        for tensor in read().values():
            tensor.read()


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_bytes_of_a_file(tmp_path, name):
    file, tensors = tmp_path / name, dict(list(as_torch(VAE_SPECS, vae.TABLE).items())[:6])
    if name.endswith(".pth"):
        write_torch(file, tensors)
    else:
        write_safetensors(file, tensors)
    content = file.read_bytes()
    for rng in runs(name):
        file.write_bytes(damaged(content, rng))
        read_all(lambda: read_weights(file))


def test_a_diffusers_folder(tmp_path):
    """Its config, its index of shards and its keys."""
    tensors = as_torch(VAE_SPECS, vae.TABLE)
    write_folder(tmp_path, VAEConfig.miniature().to_json(), tensors)
    index = tmp_path / "index.json"
    weight_map = dict.fromkeys(tensors, "diffusion_pytorch_model.safetensors")
    texts = {tmp_path / "config.json": (tmp_path / "config.json").read_bytes()}
    texts[index] = json.dumps({"weight_map": weight_map}).encode()
    for rng in runs("folder"):
        file = rng.choice(list(texts))
        file.write_bytes(damaged(texts[file], rng))
        read_all(lambda file=file: read_weights(file) if file == index else read_json(file) and {})
        keys = dict(tensors)
        for key in rng.sample(list(keys), 3):
            renamed = rng.choice((key, key.replace("to_q", "query"), f"_orig_mod.{key}", "", "\x1b[31m", key[:-1]))
            keys[renamed] = from_array(np.zeros(rng.choice(SHAPES), rng.choice((np.float32, np.int64))), "changed")
            del keys[rng.choice(list(keys))]
        read_all(lambda keys=keys: to_jax(keys, VAE_SPECS, vae.TABLE, "changed"))


def test_sizes_read_off_shapes():
    """Files in CompVis' layout and Visual Encoders, whose sizes only their shapes tell."""
    readers = (compvis.read_unet, compvis.read_controlnet, compvis.read_vae)
    for rng in runs("shapes"):
        chosen = rng.sample(COMPVIS, rng.randrange(len(COMPVIS) // 2, len(COMPVIS) + 1))
        tensors = {key: from_array(np.zeros(rng.choice(SHAPES), np.float32), "odd") for key in chosen}
        number = rng.choice((0, 3, 10**9, 10**30))
        parts = ("0.op.weight", "0.in_layers.0.weight", "1.norm.weight")
        for key in (
            f"model.diffusion_model.input_blocks.{number}.{rng.choice(parts)}",
            f"control_model.zero_convs.{number}",
        ):
            tensors[key] = from_array(np.zeros(rng.choice(SHAPES), np.float32), "odd")
        for reader in readers:
            read_all(lambda reader=reader, tensors=tensors: reader(tensors, "odd")[1])
        kinds = ("conv1.weight", "q.weight", "conv.weight", "weight", "bias")
        blocks = {f"blocks.{i}.{rng.choice(kinds)}": rng.choice(SHAPES) for i in range(rng.randrange(12))}
        read_all(lambda blocks=blocks: infer_config(blocks, 48) and {})


def test_loras(tmp_path):
    weights, file = as_torch(UNET_SPECS, unet.TABLE), tmp_path / "lora.safetensors"
    layers = [key.removesuffix(".weight").replace(".", "_") for key in weights if key.endswith(".weight")]
    for rng in runs("lora"):
        tensors = {}
        for layer in rng.sample(layers, 3):
            for part in ("lora_down.weight", "lora_up.weight", "alpha", "lora_mid.weight", "dora_scale"):
                if rng.random() < (0.9 if part.startswith("lora_") else 0.2):
                    array = np.zeros(rng.choice(SHAPES), rng.choice((np.float32, np.float16)))
                    tensors[f"lora_unet_{layer}.{part}"] = from_array(array, "odd")
        header = rng.choice(("", "{", "[]", '{"unet.lora_alpha": "x"}', '{"unet.lora_alpha": 4}', '{"unet.r": null}'))
        write_safetensors(file, tensors, metadata={"lora_adapter_metadata": header})
        read_all(lambda: merge(weights, file))
