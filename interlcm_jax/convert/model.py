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
from interlcm_jax.convert.checkpoints import DIFFUSERS, TRANSFORMERS, checked, needed, read_weights
from interlcm_jax.convert.network import SCHEDULER, read_network_config, read_schedule
from interlcm_jax.convert.optional import export_optional, read_optional
from interlcm_jax.convert.optional import origins as optional_origins
from interlcm_jax.convert.rules import Rule, Table, to_jax, to_torch
from interlcm_jax.convert.writers import write_folder, write_torch
from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.atomic import check_absent, check_space, whole_folder
from interlcm_jax.files.hub import Select, resolve
from interlcm_jax.files.safetensors import LazyTensor, open_safetensors, write_safetensors
from interlcm_jax.model_folder import NETWORKS, TASKS, ModelConfig, read_config, weights_file, write_config
from interlcm_jax.models.clip_vision import CLIPVision, CLIPVisionConfig
from interlcm_jax.models.controlnet import ControlNet
from interlcm_jax.models.unet import UNet2DCondition, UNetConfig
from interlcm_jax.models.vae import AutoencoderKL, VAEConfig
from interlcm_jax.models.visual_encoder import VisualEncoder
from interlcm_jax.models.weights import weight_specs

_Weights = dict[str, LazyTensor]

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
_LCM_STEMS = {"unet": DIFFUSERS, "vae": DIFFUSERS}
# A model folder's own names and layouts.
_IDENTITY = Table((Rule(r"(.*)", r"\1"),))


@dataclasses.dataclass(frozen=True)
class Sources:
    """Where a model's PyTorch weights are.

    Attributes:
        lcm: a diffusers pipeline folder with `unet/`, `vae/` and `scheduler/`, or its hub name. A local folder may
            lack the scheduler: then its settings are `ScheduleConfig`'s.
        clip: a transformers CLIP folder, vision-only or full, or its hub name; or a file in OpenAI's layout.
        visual_encoder: InterLCM's `visual_encoder_*.pth`.
        spatial_encoder: InterLCM's `spatial_encoder_*.pth`.
        vgg: torchvision's VGG16, for the LPIPS loss and metric; not needed to restore.
        lpips_heads: the `lpips` package's heads for it, `weights/v0.1/vgg.pth`.
        retinaface: facexlib's `detection_Resnet50_Final.pth`, to find faces in photos.
        parsenet: facexlib's `parsing_parsenet.pth`, to paste faces into photos along their outlines.
        variant: like "fp16", to take that variant's files of the LCM; CLIP is published in one.
    """

    lcm: str
    clip: str
    visual_encoder: Path
    spatial_encoder: Path
    vgg: Path | None = None
    lpips_heads: Path | None = None
    retinaface: Path | None = None
    parsenet: Path | None = None
    variant: str | None = None


def convert(
    sources: Sources,
    out: Path,
    *,
    num_network_calls: int = 3,
    task: str = "restoration",
    image_size: int = 512,
    license: str = "not stated",
    origins: Mapping[str, Mapping[str, str]] | None = None,
    allow_nan: bool = False,
    progress: Progress = lambda network, count, total: None,
) -> ModelConfig:
    """Writes a model folder from PyTorch weights, tensor by tensor, in the dtype they come in.

    Args:
        sources: the PyTorch weights.
        out: the folder to make; it appears whole or not at all.
        num_network_calls: network calls the trained weights are for (3 or 1 in the release); no file tells it.
        task: one of `model_folder.TASKS`; gives the default color fix.
        image_size: height and width of the faces the weights were trained on, pixels.
        license: license of the trained weights, for the record.
        origins: "origin" and "license" by network, for the record, where the sources' names don't tell them.
        allow_nan: write weights with NaN or infinity in them all the same.
        progress: see `Progress`.

    Raises:
        InterLCMError: a source isn't there, or isn't what it should be, or `out` exists.
        WeightsError: weights don't fit their network; every offending key of the file is named.
    """
    if task not in TASKS:
        raise InterLCMError(f"task {task!r} doesn't exist; choose one of {', '.join(TASKS)}")
    check_absent(out)
    config, weights = _read(sources)
    config = dataclasses.replace(
        config,
        num_network_calls=num_network_calls,
        task=task,
        color_fix=TASKS[task],
        image_size=image_size,
        weights={**_origins(sources, license), **(origins or {})},
    )
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
    with whole_folder(out) as temporary:
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
    """Writes a model folder back as PyTorch has it; every file loads there with strict=True.

    Makes `lcm/` (a diffusers folder with unet, vae and scheduler), `clip/` (transformers, vision tower only),
    `visual_encoder.pth` and `spatial_encoder.pth` (each under `params` and `params_ema`), and of what the model folder
    holds beside these: `vgg16.pth` and `lpips_vgg.pth` (LPIPS and its heads), `detection_Resnet50_Final.pth`
    (RetinaFace) and `parsing_parsenet.pth` (ParseNet).

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
    with whole_folder(out) as temporary:
        for name, tensors in exported.items():
            _export_network(config, name, _counted(tensors, name, total, progress), temporary)
        scheduler = temporary / "lcm" / SCHEDULER
        scheduler.parent.mkdir()
        scheduler.write_text(json.dumps(config.schedule.to_json(), indent=2) + "\n")
        optional = export_optional(folder, temporary)
    return ["lcm/", "clip/", "visual_encoder.pth", "spatial_encoder.pth", *optional]


def abstract_weights(config: ModelConfig, name: str) -> Mapping[str, jax.ShapeDtypeStruct]:
    """A network's weights by path, as shapes."""
    return weight_specs(CLASSES[name][0], config.networks[name])


def needed_lcm(variant: str | None = None) -> Select:
    """Which files of an LCM's hub repository `convert` reads."""
    return needed(_LCM_STEMS, [*(f"{name}/config.json" for name in _LCM_STEMS), SCHEDULER], variant)


def needed_clip() -> Select:
    """Which files of CLIP's hub repository `convert` reads."""
    return needed({"": TRANSFORMERS}, ["config.json"])


def _read(sources: Sources) -> tuple[ModelConfig, dict[str, tuple[Path, _Weights]]]:
    """The model's config, and each network's origin and tensors, unread."""
    lcm, clip = resolve(sources.lcm, needed_lcm(sources.variant)), resolve(sources.clip, needed_clip())
    unet_config = read_network_config(UNetConfig, lcm / "unet" / "config.json")
    vae_config = read_network_config(VAEConfig, lcm / "vae" / "config.json")
    clip_config, clip_weights = _read_clip(clip)
    spatial = read_weights(sources.spatial_encoder)
    visual = read_weights(sources.visual_encoder)
    config = ModelConfig(
        unet=unet_config,
        vae=vae_config,
        clip_vision=clip_config,
        visual_encoder=visual_encoder.infer_config(
            _shapes(visual), clip_config.hidden_size, origin=sources.visual_encoder
        ),
        spatial_encoder=controlnet.infer_config(_shapes(spatial), unet_config),
        schedule=read_schedule(lcm),
    )
    return config, {
        "unet": (lcm / "unet", read_weights(lcm / "unet", DIFFUSERS, sources.variant)),
        "spatial_encoder": (sources.spatial_encoder, spatial),
        "clip_vision": (clip, clip_weights),
        "vae": (lcm / "vae", read_weights(lcm / "vae", DIFFUSERS, sources.variant)),
        "visual_encoder": (sources.visual_encoder, visual),
    }


def _read_clip(clip: Path) -> tuple[CLIPVisionConfig, _Weights]:
    weights = read_weights(clip, TRANSFORMERS)
    if clip_vision.is_openai(weights):
        return clip_vision.openai_config(weights), clip_vision.from_openai(weights)
    folder = clip if clip.is_dir() else clip.parent
    return read_network_config(CLIPVisionConfig, folder / "config.json"), weights


def _export_network(config: ModelConfig, name: str, tensors: _Weights, out: Path) -> None:
    """Writes one network in its format."""
    if name in _LCM_STEMS:
        write_folder(out / "lcm" / name, config.networks[name].to_json(), tensors)
    elif name == "clip_vision":
        settings = {**config.clip_vision.to_json(), "architectures": ["CLIPVisionModel"]}
        write_folder(out / "clip", settings, tensors, TRANSFORMERS)
    else:
        write_torch(out / f"{name}.pth", tensors)


def _shapes(weights: _Weights) -> dict[str, tuple[int, ...]]:
    return {key: tensor.shape for key, tensor in weights.items()}


def _bytes(tensors: _Weights) -> int:
    return sum(math.prod(tensor.shape) * tensor.dtype.itemsize for tensor in tensors.values())


def _counted(tensors: _Weights, name: str, total: int, progress: Progress) -> _Weights:
    """The same tensors, each reported when it is read."""

    def count(tensor: LazyTensor) -> LazyTensor:
        def load(index: Any) -> np.ndarray:
            array = tensor.read(index)
            progress(name, array.nbytes, total)
            return array

        return dataclasses.replace(tensor, load=load)

    return {key: count(tensor) for key, tensor in tensors.items()}


def _origins(sources: Sources, license: str) -> dict[str, dict[str, str]]:
    def name(source: str | Path) -> str:
        # A local path says nothing to others, and something about its owner: just its last part is kept.
        return Path(source).name if Path(source).exists() else str(source)

    frozen = {"license": "see its origin"}
    return {
        "unet": {"origin": f"{name(sources.lcm)}/unet", **frozen},
        "vae": {"origin": f"{name(sources.lcm)}/vae", **frozen},
        "clip_vision": {"origin": name(sources.clip), **frozen},
        "spatial_encoder": {"origin": name(sources.spatial_encoder), "license": license},
        "visual_encoder": {"origin": name(sources.visual_encoder), "license": license},
        **optional_origins(sources.retinaface, sources.parsenet),
    }
