"""InterLCM in PyTorch, from diffusers' and transformers' classes, as `interlcm export` writes its weights."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Self

import diffusers
import torch
import torch.nn.functional as F
import transformers
from diffusers.models.autoencoders.vae import Decoder
from diffusers.pipelines.latent_consistency_models.pipeline_latent_consistency_img2img import (
    LatentConsistencyModelImg2ImgPipeline,
)
from safetensors.torch import load_file

from interlcm_jax.imaging.clip_preprocess import CLIP_MEAN, CLIP_STD
from interlcm_jax.model_folder import NETWORKS, ModelConfig
from interlcm_jax.parity.visual_encoder import VisualEncoder

ADAIN_EPSILON = 1e-5


@dataclasses.dataclass
class Reference:
    """The PyTorch model.

    Attributes:
        config: the settings it is run at.
        unet: diffusers' `UNet2DConditionModel`.
        spatial_encoder: diffusers' `ControlNetModel`.
        clip_vision: transformers' `CLIPVisionModel`.
        vae: diffusers' `AutoencoderKL`.
        visual_encoder: `parity.visual_encoder.VisualEncoder`.
    """

    config: ModelConfig
    unet: diffusers.UNet2DConditionModel
    spatial_encoder: diffusers.ControlNetModel
    clip_vision: transformers.CLIPVisionModel
    vae: diffusers.AutoencoderKL
    visual_encoder: VisualEncoder

    @classmethod
    def load(
        cls,
        config: ModelConfig,
        folder: Path,
        dtype: torch.dtype = torch.float32,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> Self:
        """Loads what `interlcm export` wrote, strictly, ready to restore images of `dtype`."""
        networks = {name: load_network(config, folder, name) for name in NETWORKS}
        return cls(config, **{name: net.to(dtype, memory_format=layout) for name, net in networks.items()})

    @torch.no_grad()
    def restore(self, lq: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The release's restoration, the color fix included; arguments as in `trace`."""
        return self.trace(lq, noise)["restored"]

    def trace(self, lq: torch.Tensor, noise: torch.Tensor) -> dict[str, Any]:
        """The restoration step by step on diffusers' own scheduler, with all that goes from one network to the next.

        Args:
            lq: (B, 3, H, W) in [-1, 1].
            noise: (calls, B, 4, H/8, W/8).

        Returns:
            In the order of the data: `lq`, `pixels`, `tokens`, `context`, `mean`, `latents.0`, `cond` (the guidance
            embedding, None for a UNet that takes none); for each call c from 1 `timestep.c`, `noisy.c`, `eps.c` and
            `latents.c`, and of the first its `residuals`, the mid block's last; `unscaled`, `decoded`, `restored`.
        """
        config, found = self.config, {"lq": lq}
        found["pixels"] = clip_preprocess(lq, config.clip_vision.image_size)
        found["tokens"] = all_tokens(self.clip_vision, found["pixels"])
        found["context"] = context = self.visual_encoder(found["tokens"])
        found["mean"] = self.vae.encode(lq).latent_dist.mean
        found["latents.0"] = clean = found["mean"] * config.vae.scaling_factor
        found["cond"] = cond = guidance(config, len(lq), lq.dtype)
        scheduler = diffusers.LCMScheduler.from_config(config.schedule.to_json())
        scheduler.set_timesteps(len(noise) + config.skipped_steps)
        for call, (step, draw) in enumerate(zip(scheduler.timesteps[config.skipped_steps :], noise, strict=True), 1):
            found[f"timestep.{call}"] = step[None]
            found[f"noisy.{call}"] = noisy = scheduler.add_noise(clean, draw, step[None])
            down, mid = self.spatial_encoder(noisy, step, context, lq, return_dict=False)
            found.setdefault("residuals", (*down, mid))
            found[f"eps.{call}"] = eps = self.unet(
                noisy,
                step,
                context,
                timestep_cond=cond,
                down_block_additional_residuals=down,
                mid_block_additional_residual=mid,
            ).sample
            found[f"latents.{call}"] = clean = scheduler.step(eps, step, noisy).denoised
        found["unscaled"] = clean / config.vae.scaling_factor
        found["decoded"] = self.vae.decode(found["unscaled"]).sample.float()
        found["restored"] = COLOR_FIXES[config.color_fix](found["decoded"], lq.float())
        return found


def load_network(config: ModelConfig, folder: Path, name: str) -> torch.nn.Module:
    """Loads one network, strictly, in float32, from a folder that is laid out as `interlcm export` writes it."""
    if name in ("unet", "vae"):
        network = build(config, name, _json(folder / "lcm" / name / "config.json"))
        weights = load_file(folder / "lcm" / name / "diffusion_pytorch_model.safetensors")
    elif name == "clip_vision":
        network = build(config, name, _json(folder / "clip" / "config.json"))
        weights = load_file(folder / "clip" / "model.safetensors")
        if not hasattr(network, "vision_model"):
            weights = {key.removeprefix("vision_model."): tensor for key, tensor in weights.items()}
    else:
        network = build(config, name)
        weights = torch.load(folder / f"{name}.pth", mmap=True, weights_only=True)["params_ema"]
    network.load_state_dict(weights)
    return network.eval().float()


def build(config: ModelConfig, name: str, settings: dict | None = None) -> torch.nn.Module:
    """One network of a model with PyTorch's own initial weights; `settings` are its published `config.json`."""
    settings = settings or config.networks[name].to_json()
    match name:
        case "unet":
            return diffusers.UNet2DConditionModel.from_config(settings)
        case "spatial_encoder":
            return diffusers.ControlNetModel.from_config(settings)
        case "clip_vision":
            settings = {key: value for key, value in settings.items() if key != "model_type"}
            return transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**settings))
        case "vae":
            return _vae(dict(settings))
        case "visual_encoder":
            return VisualEncoder(config.visual_encoder)


def _vae(settings: dict) -> diffusers.AutoencoderKL:
    widths = settings.pop("decoder_block_out_channels", None)
    vae = diffusers.AutoencoderKL.from_config(settings)
    if widths:
        # diffusers gives both halves the same widths.
        vae.decoder = Decoder(
            settings["latent_channels"],
            settings["out_channels"],
            up_block_types=tuple(settings["up_block_types"]),
            block_out_channels=tuple(widths),
            layers_per_block=settings["layers_per_block"],
            norm_num_groups=settings["norm_num_groups"],
        )
    return vae


def guidance(config: ModelConfig, count: int, dtype: torch.dtype) -> torch.Tensor | None:
    """The guidance embedding, (count, G); None for a UNet that takes none."""
    if config.unet.time_cond_proj_dim is None:
        return None
    w = torch.full((count,), config.guidance_scale - 1)
    embed = LatentConsistencyModelImg2ImgPipeline.get_guidance_scale_embedding
    return embed(None, w, config.unet.time_cond_proj_dim).to(dtype)


def clip_preprocess(lq: torch.Tensor, size: int) -> torch.Tensor:
    """The image as the release prepares it for CLIP: short side to `size`, without antialiasing, center, normalized."""
    height, width = lq.shape[2:]
    short = min(height, width)
    resized = (int(size * height / short), int(size * width / short))
    resized = F.interpolate((lq.float() + 1) / 2, size=resized, mode="bicubic", align_corners=False)
    top, left = (round((length - size) / 2) for length in resized.shape[2:])
    cropped = resized[:, :, top : top + size, left : left + size]
    mean, std = (torch.from_numpy(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return ((cropped - mean) / std).to(lq.dtype)


def all_tokens(clip: transformers.CLIPVisionModel, pixels: torch.Tensor) -> torch.Tensor:
    """CLIP's tokens, the post norm applied to every one, where transformers applies it to the first only."""
    model = getattr(clip, "vision_model", clip)
    return model.post_layernorm(model(pixels).last_hidden_state)


def wavelet(restored: torch.Tensor, lq: torch.Tensor) -> torch.Tensor:
    """High frequencies of `restored`, low frequencies of `lq`."""
    kernel = torch.outer(torch.tensor([1.0, 2, 1]), torch.tensor([1.0, 2, 1])) / 16
    kernel = kernel.expand(3, 1, 3, 3)

    def split(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        high = torch.zeros_like(x)
        for level in range(5):
            padded = F.pad(x, [2**level] * 4, mode="replicate")
            blurred = F.conv2d(padded, kernel, groups=3, dilation=2**level)
            high, x = high + x - blurred, blurred
        return high, x

    return split(restored)[0] + split(lq)[1]


def adain(restored: torch.Tensor, lq: torch.Tensor) -> torch.Tensor:
    """`restored` with the mean and deviation of each channel of `lq`."""
    (mean, std), (wanted_mean, wanted_std) = (
        (x.mean((2, 3), keepdim=True), (x.var((2, 3), keepdim=True) + ADAIN_EPSILON).sqrt()) for x in (restored, lq)
    )
    return (restored - mean) / std * wanted_std + wanted_mean


COLOR_FIXES = {"wavelet": wavelet, "adain": adain, "none": lambda restored, lq: restored}


def _json(path: Path) -> dict:
    return json.loads(path.read_text())
