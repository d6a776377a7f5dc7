"""Single-file checkpoints in CompVis' layout, as most fine-tunes of Stable Diffusion 1.5 are published.

One file holds UNet, autoencoder and text encoder, each under a prefix, and no sizes: these are read off the shapes. The
names are turned into diffusers', whose tables then take over.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from interlcm_jax.errors import InterLCMError, WeightsError, describe
from interlcm_jax.files.safetensors import LazyTensor
from interlcm_jax.models.config import NetworkConfig
from interlcm_jax.models.controlnet import ControlNetConfig
from interlcm_jax.models.unet import UNetConfig
from interlcm_jax.models.vae import VAEConfig

Config = TypeVar("Config", bound=NetworkConfig)
_Weights = dict[str, LazyTensor]

# Where each network stands in a checkpoint, or in a file of its own.
_UNET, _CONTROLNET, _VAE = ("model.diffusion_model.", ""), ("control_model.", ""), ("first_stage_model.", "")
_BLOCKS = r"input_blocks\.(\d+)\."
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


def read_unet(tensors: Mapping[str, LazyTensor], origin: Path) -> tuple[UNetConfig, _Weights]:
    """Sizes and weights, still unread and by diffusers' keys, of the UNet in a checkpoint.

    Raises:
        WeightsError: there is no UNet in it, or it is another than Stable Diffusion 1's.
    """
    unet = _part(tensors, _UNET, "input_blocks.0.0.weight", origin, "UNet")
    sizes, layers = _encoder_sizes(unet, origin), _layers(unet, origin)
    blocks = len(sizes["block_out_channels"])
    sizes |= {
        "out_channels": _shape(unet, "out.2.weight", 4, origin)[0],
        "up_block_types": tuple(t.replace("Down", "Up") for t in reversed(sizes["down_block_types"])),
    }
    if "time_embed.cond_proj.weight" in unet:
        sizes["time_cond_proj_dim"] = _shape(unet, "time_embed.cond_proj.weight", 2, origin)[1]
    config = _config(UNetConfig, sizes, origin)
    modules = _encoder_modules(blocks, layers) | {"out.0": "conv_norm_out", "out.2": "conv_out"}
    for i, kind in enumerate(config.up_block_types):
        first = i * (layers + 1)
        for j in range(layers + 1):
            modules |= _resnet(f"output_blocks.{first + j}.0", f"up_blocks.{i}.resnets.{j}")
            modules[f"output_blocks.{first + j}.1"] = f"up_blocks.{i}.attentions.{j}"
        # After the attention, where there is one.
        upsampler = f"output_blocks.{first + layers}.{2 if 'CrossAttn' in kind else 1}.conv"
        modules[upsampler] = f"up_blocks.{i}.upsamplers.0.conv"
    return config, _renamed(unet, modules, origin)


def read_controlnet(tensors: Mapping[str, LazyTensor], origin: Path) -> tuple[ControlNetConfig, _Weights]:
    """Sizes and weights, still unread and by diffusers' keys, of a ControlNet's own file; as `read_unet`."""
    controlnet = _part(tensors, _CONTROLNET, "input_hint_block.0.weight", origin, "ControlNet")
    sizes, layers = _encoder_sizes(controlnet, origin), _layers(controlnet, origin)
    hints = _numbers(controlnet, r"input_hint_block\.(\d+)\.weight$")
    # Convolutions come in pairs; the second of each widens, and the last one leads to the UNet's width.
    widths = [_shape(controlnet, f"input_hint_block.{i}.weight", 4, origin)[0] for i in (0, *hints[2:-1:2])]
    sizes |= {
        "conditioning_channels": _shape(controlnet, "input_hint_block.0.weight", 4, origin)[1],
        "conditioning_embedding_out_channels": tuple(widths),
    }
    config = _config(ControlNetConfig, sizes, origin)
    hint, blocks = "controlnet_cond_embedding", len(config.block_out_channels)
    modules = _encoder_modules(blocks, layers) | {"middle_block_out.0": "controlnet_mid_block"}
    modules |= {f"zero_convs.{i}.0": f"controlnet_down_blocks.{i}" for i in range(blocks * (layers + 1))}
    modules |= {f"input_hint_block.{number}": f"{hint}.blocks.{i}" for i, number in enumerate(hints[1:-1])}
    modules |= {"input_hint_block.0": f"{hint}.conv_in", f"input_hint_block.{hints[-1]}": f"{hint}.conv_out"}
    return config, _renamed(controlnet, modules, origin)


def read_vae(tensors: Mapping[str, LazyTensor], origin: Path) -> tuple[VAEConfig, _Weights]:
    """Sizes and weights, still unread and by diffusers' keys, of the autoencoder in a checkpoint; as `read_unet`."""
    vae = _part(tensors, _VAE, "encoder.down.0.block.0.conv1.weight", origin, "autoencoder")
    levels, layers = (len(_numbers(vae, p)) for p in (r"encoder\.down\.(\d+)\.", r"encoder\.down\.0\.block\.(\d+)\."))
    widths = [_shape(vae, f"encoder.down.{i}.block.0.conv1.weight", 4, origin)[0] for i in range(levels)]
    sizes = {
        "in_channels": _shape(vae, "encoder.conv_in.weight", 4, origin)[1],
        "out_channels": _shape(vae, "decoder.conv_out.weight", 4, origin)[0],
        "block_out_channels": tuple(widths),
        "layers_per_block": layers,
        "latent_channels": _shape(vae, "post_quant_conv.weight", 4, origin)[1],
    }
    config = _config(VAEConfig, sizes, origin)
    modules = {}
    for side in ("encoder", "decoder"):
        modules[f"{side}.norm_out"] = f"{side}.conv_norm_out"
        modules |= {f"{side}.mid.block_{j + 1}": f"{side}.mid_block.resnets.{j}" for j in range(2)}
        attention = f"{side}.mid_block.attentions.0"
        modules |= {f"{side}.mid.attn_1.{theirs}": f"{attention}.{ours}" for theirs, ours in _ATTENTION.items()}
    for i in range(levels):
        down, up = f"encoder.down_blocks.{i}", f"decoder.up_blocks.{levels - 1 - i}"
        modules[f"encoder.down.{i}.downsample"] = f"{down}.downsamplers.0"
        modules[f"decoder.up.{i}.upsample"] = f"{up}.upsamplers.0"
        modules |= {f"encoder.down.{i}.block.{j}": f"{down}.resnets.{j}" for j in range(layers)}
        modules |= {f"decoder.up.{i}.block.{j}": f"{up}.resnets.{j}" for j in range(layers + 1)}
    shortcuts = {f"{theirs}.nin_shortcut": f"{ours}.conv_shortcut" for theirs, ours in modules.items()}
    return config, _renamed(vae, modules | shortcuts, origin)


def _config(kind: type[Config], sizes: Mapping[str, Any], origin: Path) -> Config:
    try:
        return kind(**sizes)
    except InterLCMError as error:
        raise InterLCMError(f"{origin}: {error}") from error


def _part(tensors: Mapping[str, LazyTensor], prefixes: tuple[str, ...], sign: str, origin: Path, what: str) -> _Weights:
    """The tensors of one network by their keys without its prefix."""
    prefix = next((prefix for prefix in prefixes if prefix + sign in tensors), None)
    if prefix is None:
        raise WeightsError(origin, [f"no {what} in CompVis' layout (no {prefixes[0]}{sign})"])
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def _encoder_sizes(unet: _Weights, origin: Path) -> dict[str, Any]:
    """The sizes that UNet and ControlNet share. Heads and norms are Stable Diffusion 1's: no weight tells them."""
    if "label_emb.0.0.weight" in unet:
        raise WeightsError(origin, ["a UNet of Stable Diffusion XL; only Stable Diffusion 1's is implemented"])
    transformer = "middle_block.1."
    if len(_shape(unet, f"{transformer}proj_in.weight", None, origin)) != 4:
        raise WeightsError(origin, ["a UNet of Stable Diffusion 2; only Stable Diffusion 1's is implemented"])
    layers = _layers(unet, origin)
    firsts = range(1, len(_numbers(unet, _BLOCKS)), layers + 1)
    attends = [f"input_blocks.{n}.1.norm.weight" in unet for n in firsts]
    return {
        "in_channels": _shape(unet, "input_blocks.0.0.weight", 4, origin)[1],
        "block_out_channels": tuple(
            _shape(unet, f"input_blocks.{n}.0.out_layers.3.weight", 4, origin)[0] for n in firsts
        ),
        "down_block_types": tuple("CrossAttnDownBlock2D" if attend else "DownBlock2D" for attend in attends),
        "layers_per_block": layers,
        "cross_attention_dim": _shape(unet, f"{transformer}transformer_blocks.0.attn2.to_k.weight", 2, origin)[1],
        "transformer_layers_per_block": len(_numbers(unet, r"middle_block\.1\.transformer_blocks\.(\d+)\.")),
    }


def _layers(unet: _Weights, origin: Path) -> int:
    """Resnets in each down block: the input blocks before the first that halves the size, without the very first."""
    count = len(_numbers(unet, _BLOCKS))
    layers = min(_numbers(unet, r"input_blocks\.(\d+)\.0\.op\.weight$"), default=count) - 1
    if not 1 <= layers < count:
        raise WeightsError(origin, [f"{count} input blocks, which are too few for a Stable Diffusion UNet"])
    return layers


def _encoder_modules(blocks: int, layers: int) -> dict[str, str]:
    """CompVis' names of the modules that UNet and ControlNet share, and diffusers' for them."""
    modules = {
        "input_blocks.0.0": "conv_in",
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "time_embed.cond_proj": "time_embedding.cond_proj",
        "middle_block.1": "mid_block.attentions.0",
        **_resnet("middle_block.0", "mid_block.resnets.0"),
        **_resnet("middle_block.2", "mid_block.resnets.1"),
    }
    for i in range(blocks):
        first = i * (layers + 1) + 1
        for j in range(layers):
            modules |= _resnet(f"input_blocks.{first + j}.0", f"down_blocks.{i}.resnets.{j}")
            modules[f"input_blocks.{first + j}.1"] = f"down_blocks.{i}.attentions.{j}"
        modules[f"input_blocks.{first + layers}.0.op"] = f"down_blocks.{i}.downsamplers.0.conv"
    return modules


def _resnet(theirs: str, ours: str) -> dict[str, str]:
    return {f"{theirs}.{inner}": f"{ours}.{name}" for inner, name in _RESNET.items()}


def _renamed(tensors: _Weights, modules: Mapping[str, str], origin: Path) -> _Weights:
    """The tensors by diffusers' keys; those of no known module keep theirs, so that `to_jax` names them."""
    renamed, twice = {}, []
    for key, tensor in tensors.items():
        parts = key.split(".")
        heads = (cut for cut in range(len(parts), 0, -1) if ".".join(parts[:cut]) in modules)
        cut = next(heads, 0)
        new = ".".join([modules[".".join(parts[:cut])], *parts[cut:]]) if cut else key
        if new in renamed:
            twice.append(new)
        renamed[new] = tensor
    if twice:
        raise WeightsError(origin, describe("duplicate keys", sorted(twice)))
    return renamed


def _numbers(keys: Collection[str], pattern: str) -> list[int]:
    """The numbers that the pattern's group is in keys that begin like it, in order."""
    return sorted({int(match[1]) for key in keys if (match := re.match(pattern, key))})


def _shape(tensors: _Weights, key: str, rank: int | None, origin: Path) -> tuple[int, ...]:
    """The shape of a weight that tells a size."""
    if key not in tensors:
        raise WeightsError(origin, describe("missing keys", [key]))
    shape = tensors[key].shape
    if rank is not None and len(shape) != rank:
        raise WeightsError(origin, describe("mis-shaped keys", [f"{key} {shape}"]))
    return shape
