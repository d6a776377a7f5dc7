"""Where a model's PyTorch weights are, and what they say: the sizes of its networks, and their tensors, unread."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interlcm_jax.convert import clip_vision, compvis, controlnet, lora, visual_encoder
from interlcm_jax.convert.checkpoints import DIFFUSERS, TRANSFORMERS, needed, read_weights, weight_file
from interlcm_jax.convert.network import SCHEDULER, is_compvis, networks_inside, read_network_config, read_schedule
from interlcm_jax.convert.optional import file_origins
from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.hub import Select, resolve
from interlcm_jax.files.safetensors import LazyTensor
from interlcm_jax.model_folder import ModelConfig
from interlcm_jax.models.clip_vision import CLIPVisionConfig
from interlcm_jax.models.unet import UNetConfig
from interlcm_jax.models.vae import VAEConfig

Weights = dict[str, LazyTensor]

# The settings of an exported model, in the folder of its `visual_encoder.pth`: PyTorch's files don't hold them.
SETTINGS = "interlcm.json"
_LCM_STEMS = {"unet": DIFFUSERS, "vae": DIFFUSERS}


@dataclasses.dataclass(frozen=True)
class Sources:
    """Where a model's PyTorch weights are.

    Attributes:
        lcm: a diffusers pipeline folder with `unet/`, `vae/` and `scheduler/`, or its hub name. A local folder may
            lack the scheduler: then its settings are `ScheduleConfig`'s. Or a Stable Diffusion 1 checkpoint in one
            file, in CompVis' layout.
        clip: a transformers CLIP folder, vision-only or full, or its hub name; or a file in OpenAI's layout.
        visual_encoder: InterLCM's `visual_encoder_*.pth`.
        spatial_encoder: InterLCM's `spatial_encoder_*.pth`.
        lora: a LoRA to merge into the UNet, such as LCM-LoRA, which makes an LCM of Stable Diffusion 1.5: a file, a
            folder or a hub name.
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
    lora: str | None = None
    vgg: Path | None = None
    lpips_heads: Path | None = None
    retinaface: Path | None = None
    parsenet: Path | None = None
    variant: str | None = None

    @property
    def settings_file(self) -> Path | None:
        """The settings that `export` wrote beside the Visual Encoder; None where it wrote none."""
        path = self.visual_encoder.parent / SETTINGS
        return path if path.is_file() else None


def needed_lcm(variant: str | None = None) -> Select:
    """Which files of an LCM's hub repository `convert` reads."""
    return needed(_LCM_STEMS, [*(f"{name}/config.json" for name in _LCM_STEMS), SCHEDULER], variant)


def needed_clip() -> Select:
    """Which files of CLIP's hub repository `convert` reads."""
    return needed({"": TRANSFORMERS}, ["config.json"])


def read_sources(sources: Sources, license: str | None) -> tuple[ModelConfig, dict[str, tuple[Path, Weights]]]:
    """The model's config, and each network's origin and tensors, unread.

    Where `export` wrote the files, its settings are the config's; else these are `ModelConfig`'s own.

    Raises:
        InterLCMError: a source isn't there, or isn't what it should be.
        WeightsError: a file isn't whole, or isn't its network's.
    """
    frozen, weights = _read_lcm(sources)
    clip = resolve(sources.clip, needed_clip())
    frozen["clip_vision"], clip_weights = _read_clip(clip)
    spatial = read_weights(sources.spatial_encoder)
    visual = read_weights(sources.visual_encoder)
    settings = sources.settings_file
    exported = read_network_config(ModelConfig, settings) if settings else None
    if exported:
        visual_config = exported.visual_encoder
    else:
        features = frozen["clip_vision"].hidden_size
        visual_config = visual_encoder.infer_config(_shapes(visual), features, origin=sources.visual_encoder)
    if exported and sources.spatial_encoder.parent == sources.visual_encoder.parent:
        spatial_config = exported.spatial_encoder
    else:
        spatial_config = controlnet.infer_config(_shapes(spatial), frozen["unet"])
    networks = {**frozen, "visual_encoder": visual_config, "spatial_encoder": spatial_config}
    config = dataclasses.replace(exported, **networks) if exported else ModelConfig(**networks)
    config = dataclasses.replace(config, weights=_origins(sources, license, exported))
    return config, {
        **weights,
        "spatial_encoder": (sources.spatial_encoder, spatial),
        "clip_vision": (clip, clip_weights),
        "visual_encoder": (sources.visual_encoder, visual),
    }


def _read_lcm(sources: Sources) -> tuple[dict[str, Any], dict[str, tuple[Path, Weights]]]:
    """Configs of UNet, autoencoder and schedule, and the tensors of the two."""
    lcm = resolve(sources.lcm, needed_lcm(sources.variant))
    if lcm.is_file():
        configs, weights = _read_one_file(lcm)
    else:
        configs, weights = _read_pipeline(lcm, sources.variant)
    if sources.lora is not None:
        origin, unet = weights["unet"]
        weights["unet"] = origin, lora.merge(unet, sources.lora)
    return configs, weights


def _read_one_file(path: Path) -> tuple[dict[str, Any], dict[str, tuple[Path, Weights]]]:
    tensors = read_weights(path)
    if not is_compvis(tensors):
        raise InterLCMError(f"{path}: no Stable Diffusion checkpoint in CompVis' layout; else name a pipeline's folder")
    read = {"unet": compvis.read_unet(tensors, path), "vae": compvis.read_vae(tensors, path)}
    configs: dict[str, Any] = {name: config for name, (config, _) in read.items()}
    return configs, {name: (path, weights) for name, (_, weights) in read.items()}


def _read_pipeline(folder: Path, variant: str | None) -> tuple[dict[str, Any], dict[str, tuple[Path, Weights]]]:
    if absent := [name for name in _LCM_STEMS if not (folder / name).is_dir()]:
        inner = networks_inside(folder)
        held = f"it holds {', '.join(inner)}" if inner else "name the folder that holds unet/ and vae/"
        raise InterLCMError(f"{folder}: no pipeline's folder, as {' and '.join(absent)} are missing; {held}")
    configs: dict[str, Any] = {
        "unet": read_network_config(UNetConfig, folder / "unet" / "config.json"),
        "vae": read_network_config(VAEConfig, folder / "vae" / "config.json"),
        "schedule": read_schedule(folder),
    }
    names = {name: [entry.name for entry in (folder / name).iterdir()] for name in _LCM_STEMS}
    having = [name for name in names if weight_file(names[name], DIFFUSERS, variant)] or list(names)
    return configs, {
        # As in `needed`: the variant may be the UNet's alone.
        name: (folder / name, read_weights(folder / name, DIFFUSERS, variant if name in having else None))
        for name in names
    }


def _read_clip(clip: Path) -> tuple[CLIPVisionConfig, Weights]:
    weights = read_weights(clip, TRANSFORMERS)
    if clip_vision.is_openai(weights):
        return clip_vision.openai_config(weights), clip_vision.from_openai(weights)
    folder = clip if clip.is_dir() else clip.parent
    return read_network_config(CLIPVisionConfig, folder / "config.json"), weights


def _shapes(weights: Weights) -> dict[str, tuple[int, ...]]:
    return {key: tensor.shape for key, tensor in weights.items()}


def _origins(sources: Sources, license: str | None, exported: ModelConfig | None) -> dict[str, Mapping[str, str]]:
    """Origin and license by network; of files that `export` wrote, those that the model had."""

    def name(source: str | Path) -> str:
        # A local path says nothing to others, and something about its owner: just its last part is kept.
        return Path(source).name if Path(source).exists() else str(source)

    frozen = {"license": "see its origin"}
    trained = {"license": license or "not stated"}
    merged = f" with {name(sources.lora)}" if sources.lora else ""
    found = {
        "unet": {"origin": f"{name(sources.lcm)}/unet{merged}", **frozen},
        "vae": {"origin": f"{name(sources.lcm)}/vae", **frozen},
        "clip_vision": {"origin": name(sources.clip), **frozen},
        "spatial_encoder": {"origin": name(sources.spatial_encoder), **trained},
        "visual_encoder": {"origin": name(sources.visual_encoder), **trained},
        **file_origins(sources.retinaface, sources.parsenet),
    }
    if exported is None:
        return found
    folder = sources.visual_encoder.parent.resolve()
    # A UNet that a LoRA was merged into is no longer the exported one.
    files = {"unet": None if sources.lora else sources.lcm, "vae": sources.lcm, "clip_vision": sources.clip}
    files |= {name: getattr(sources, name) for name in found if name not in files}
    for name, file in files.items():
        if file and Path(file).resolve().is_relative_to(folder):
            stated = {"license": license} if license and name in ("spatial_encoder", "visual_encoder") else {}
            found[name] = {**exported.weights.get(name, {}), **stated}
    return {name: entry for name, entry in found.items() if entry}
