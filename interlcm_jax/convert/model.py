"""Whole models: PyTorch's files to a model folder (`convert`), and back (`export`)."""

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from interlcm_jax.convert import clip_vision, controlnet, unet, vae, visual_encoder
from interlcm_jax.convert.checkpoints import TRANSFORMERS, checked
from interlcm_jax.convert.network import SCHEDULER
from interlcm_jax.convert.optional import export_optional, read_optional
from interlcm_jax.convert.rules import Rule, Table, to_jax, to_torch
from interlcm_jax.convert.sources import SETTINGS, Sources, Weights, needed_clip, needed_lcm, read_sources
from interlcm_jax.convert.writers import write_decoder_loader, write_folder, write_torch
from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.atomic import check_absent, check_space, whole_folder
from interlcm_jax.files.safetensors import LazyTensor, open_safetensors, write_safetensors
from interlcm_jax.model_folder import CONFIG, NETWORKS, TASKS, ModelConfig, read_config, weights_file, write_config
from interlcm_jax.models.clip_vision import CLIPVision
from interlcm_jax.models.controlnet import ControlNet
from interlcm_jax.models.unet import UNet2DCondition
from interlcm_jax.models.vae import AutoencoderKL
from interlcm_jax.models.visual_encoder import VisualEncoder
from interlcm_jax.models.weights import weight_specs

__all__ = ["Progress", "Sources", "convert", "export", "needed_clip", "needed_lcm"]

# Called after each tensor with the name of its network, its bytes, and the bytes of all networks.
Progress = Callable[[str, int, int], object]

# Each network, and how PyTorch names its weights.
CLASSES: Mapping[str, tuple[type[nnx.Module], Table]] = {
    "unet": (UNet2DCondition, unet.TABLE),
    "spatial_encoder": (ControlNet, controlnet.TABLE),
    "clip_vision": (CLIPVision, clip_vision.TABLE),
    "vae": (AutoencoderKL, vae.TABLE),
    "visual_encoder": (VisualEncoder, visual_encoder.TABLE),
}
# A model folder's own names and layouts.
_IDENTITY = Table((Rule(r"(.*)", r"\1"),))


def convert(
    sources: Sources,
    out: Path,
    *,
    num_network_calls: int | None = None,
    task: str | None = None,
    image_size: int | None = None,
    license: str | None = None,
    origins: Mapping[str, Mapping[str, str]] | None = None,
    allow_nan: bool = False,
    progress: Progress = lambda network, count, total: None,
) -> ModelConfig:
    """Writes a model folder from PyTorch weights, tensor by tensor, in the dtype they come in.

    PyTorch's files hold no settings. Where `export` wrote them, its `interlcm.json` does, and conversion gives back the
    model that was exported, but for what the arguments change.

    Args:
        sources: the PyTorch weights.
        out: the folder to make; it appears whole or not at all.
        num_network_calls: network calls the trained weights are for (3 or 1 in the release); 3 by default.
        task: one of `model_folder.TASKS`, which gives the default color fix; "restoration" by default.
        image_size: height and width of the faces the weights were trained on, pixels; 512 by default.
        license: license of the trained weights, for the record; "not stated" by default.
        origins: "origin" and "license" by network, for the record, where the sources' names don't tell them.
        allow_nan: write weights with NaN or infinity in them all the same.
        progress: see `Progress`.

    Raises:
        InterLCMError: a source isn't there, or isn't what it should be, or `out` exists.
        WeightsError: weights don't fit their network; every offending key of the file is named.
    """
    if task is not None and task not in TASKS:
        raise InterLCMError(f"task {task!r} doesn't exist; choose one of {', '.join(TASKS)}")
    check_absent(out, CONFIG)
    config, weights = read_sources(sources, license)
    given = {"num_network_calls": num_network_calls, "task": task, "image_size": image_size}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if task not in (None, config.task):
        changes["color_fix"] = TASKS[task]
    config = dataclasses.replace(config, weights={**config.weights, **(origins or {})}, **changes)
    config.check()
    # All files are checked by name and shape before the first byte is written.
    converted = {
        name: (origin, to_jax(tensors, abstract_weights(config, name), CLASSES[name][1], origin))
        for name, (origin, tensors) in weights.items()
    }
    converted |= read_optional(
        vgg=sources.vgg, lpips_heads=sources.lpips_heads, retinaface=sources.retinaface, parsenet=sources.parsenet
    )
    del weights
    total = sum(_bytes(tensors) for _, tensors in converted.values())
    with whole_folder(out, CONFIG) as temporary:
        check_space(temporary, total)
        write_config(temporary, config)
        for name in list(converted):
            # Popped, so that a file's mapped pages are let go before the next file's come.
            origin, tensors = converted.pop(name)
            with contextlib.nullcontext(tensors) if allow_nan else checked(tensors, origin) as lazy:
                counted = _counted(lazy, name, total, progress)
                write_safetensors(weights_file(temporary, name), counted)
            del tensors, lazy, counted
    return config


def export(folder: Path, out: Path, progress: Progress = lambda network, count, total: None) -> list[str]:
    """Writes a model folder back as PyTorch has it.

    Makes `lcm/` (a diffusers folder with unet, vae and scheduler), `clip/` (transformers, vision tower only),
    `visual_encoder.pth` and `spatial_encoder.pth` (each under `params` and `params_ema`), `interlcm.json` (settings
    for `convert`), and of what the model folder holds beside these: `vgg16.pth` and `lpips_vgg.pth` (LPIPS and its
    heads), `detection_Resnet50_Final.pth` (RetinaFace) and `parsing_parsenet.pth` (ParseNet). PyTorch's modules load
    every file with strict=True; an autoencoder whose decoder has widths of its own is loaded by `load_vae.py`.

    Args:
        folder: the model folder.
        out: the folder to make; it appears whole or not at all.
        progress: see `Progress`.

    Returns:
        Names of the folders and files made.

    Raises:
        InterLCMError: `folder` isn't a model folder, `out` exists, or PyTorch isn't installed.
        WeightsError: the model folder's weights don't fit its config.
    """
    config = read_config(folder)
    exported = {}
    for name in NETWORKS:
        path, shapes = weights_file(folder, name), abstract_weights(config, name)
        stored = to_jax(open_safetensors(path), shapes, _IDENTITY, path)
        exported[name] = to_torch(stored, shapes, CLASSES[name][1])
    total = sum(map(_bytes, exported.values()))
    with whole_folder(out, SETTINGS) as temporary:
        for name, tensors in exported.items():
            _export_network(config, name, _counted(tensors, name, total, progress), temporary)
        scheduler = temporary / "lcm" / SCHEDULER
        scheduler.parent.mkdir()
        scheduler.write_text(json.dumps(config.schedule.to_json(), indent=2) + "\n")
        (temporary / SETTINGS).write_text(json.dumps(config.to_json(), indent=2) + "\n")
        others = export_optional(folder, temporary)
        if config.vae.decoder_block_out_channels is not None:
            others += [write_decoder_loader(temporary)]
    return ["lcm/", "clip/", "visual_encoder.pth", "spatial_encoder.pth", SETTINGS, *others]


def abstract_weights(config: ModelConfig, name: str) -> Mapping[str, jax.ShapeDtypeStruct]:
    """A network's weights by path, as shapes."""
    return weight_specs(CLASSES[name][0], config.networks[name])


def _export_network(config: ModelConfig, name: str, tensors: Weights, out: Path) -> None:
    """Writes one network in its format."""
    if name in ("unet", "vae"):
        write_folder(out / "lcm" / name, config.networks[name].to_json(), tensors)
    elif name == "clip_vision":
        settings = {**config.clip_vision.to_json(), "architectures": ["CLIPVisionModel"]}
        write_folder(out / "clip", settings, tensors, TRANSFORMERS)
    else:
        write_torch(out / f"{name}.pth", tensors)


def _bytes(tensors: Weights) -> int:
    return sum(math.prod(tensor.shape) * tensor.dtype.itemsize for tensor in tensors.values())


def _counted(tensors: Weights, name: str, total: int, progress: Progress) -> Weights:
    """The same tensors, each reported when it is read."""

    def count(tensor: LazyTensor) -> LazyTensor:
        def load(index: Any) -> np.ndarray:
            array = tensor.read(index)
            progress(name, array.nbytes, total)
            return array

        return dataclasses.replace(tensor, load=load)

    return {key: count(tensor) for key, tensor in tensors.items()}
