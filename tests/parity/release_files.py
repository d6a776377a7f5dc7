"""The release's files, miniature: converted by the command, and edited."""

import json

import torch
from safetensors.torch import load_file, save_file

from interlcm_jax.cli.main import main

UNET = "lcm/unet/diffusion_pytorch_model.safetensors"
VAE = "lcm/vae/diffusion_pytorch_model.safetensors"
CLIP = "clip/model.safetensors"
VISUAL, SPATIAL = "visual_encoder.pth", "spatial_encoder.pth"
OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


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


def download(server, *options):
    return main(["download", "--release", f"{server.url}/v0", *map(str, options)])


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
