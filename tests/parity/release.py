"""InterLCM in PyTorch: the five networks from diffusers and transformers, its restoration, and the release's files."""

import dataclasses
import json
from pathlib import Path

import diffusers
import torch
import torch.nn.functional as F
import transformers
from diffusers.pipelines.latent_consistency_models.pipeline_latent_consistency_img2img import (
    LatentConsistencyModelImg2ImgPipeline,
)

from interlcm_jax.model_folder import ModelConfig
from tests.parity.bridge import randomize
from tests.parity.visual_encoder_twin import Twin

CLIP_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
CLIP_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


@dataclasses.dataclass
class Release:
    """The PyTorch model, with the settings it is run at."""

    config: ModelConfig
    unet: diffusers.UNet2DConditionModel
    vae: diffusers.AutoencoderKL
    clip: transformers.CLIPVisionModel
    visual_encoder: Twin
    spatial_encoder: diffusers.ControlNetModel

    @classmethod
    def random(cls, config: ModelConfig) -> "Release":
        """Random weights that keep every activation near unit scale."""
        return cls(config, *(build(config) for build in (unet, vae, clip, visual_encoder, spatial_encoder)))

    @classmethod
    def load(
        cls,
        config: ModelConfig,
        folder: Path,
        dtype: torch.dtype = torch.float32,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> "Release":
        """What `save` wrote, ready to restore images of `dtype`."""
        visual, spatial = (
            Twin(config.visual_encoder),
            diffusers.ControlNetModel.from_config(config.spatial_encoder.to_json()),
        )
        for name, network in (("visual_encoder", visual), ("spatial_encoder", spatial)):
            network.load_state_dict(torch.load(folder / f"{name}.pth", mmap=True)["params_ema"])
        networks = (
            diffusers.UNet2DConditionModel.from_pretrained(folder / "lcm" / "unet"),
            diffusers.AutoencoderKL.from_pretrained(folder / "lcm" / "vae"),
            transformers.CLIPVisionModel.from_pretrained(folder / "clip"),
            visual,
            spatial,
        )
        return cls(config, *(network.eval().to(dtype, memory_format=layout) for network in networks))

    @torch.no_grad()
    def restore(self, lq: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The release's restoration, the wavelet color fix included; arguments as in `generate`."""
        return wavelet(self.generate(lq, noise), lq.float())

    def generate(self, lq: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The restoration path of the release up to the color fix, step by step, on diffusers' own scheduler.

        Args:
            lq: (B, 3, H, W) in [-1, 1].
            noise: (calls, B, 4, H/8, W/8).
        """
        context = self.visual_encoder(self.clip_tokens(lq))
        scheduler = diffusers.LCMScheduler.from_config(self.config.schedule.to_json())
        scheduler.set_timesteps(len(noise) + 1)
        scale = self.config.vae.scaling_factor
        clean = self.vae.encode(lq).latent_dist.mean * scale
        w = torch.full((len(lq),), self.config.guidance_scale - 1)
        cond = LatentConsistencyModelImg2ImgPipeline.get_guidance_scale_embedding(
            None, w, self.config.unet.time_cond_proj_dim
        )
        cond = cond.to(lq.dtype)
        for step, draw in zip(scheduler.timesteps[1:], noise, strict=True):
            noisy = scheduler.add_noise(clean, draw, step[None])
            down, mid = self.spatial_encoder(noisy, step, context, lq, return_dict=False)
            eps = self.unet(
                noisy,
                step,
                context,
                timestep_cond=cond,
                down_block_additional_residuals=down,
                mid_block_additional_residual=mid,
            ).sample
            clean = scheduler.step(eps, step, noisy).denoised
        return self.vae.decode(clean / scale).sample.float()

    def clip_tokens(self, lq: torch.Tensor) -> torch.Tensor:
        """CLIP's tokens after the post norm, as the release prepares the image."""
        size, (height, width) = self.config.clip_vision.image_size, lq.shape[2:]
        short = min(height, width)
        resized = (int(size * height / short), int(size * width / short))
        resized = F.interpolate((lq.float() + 1) / 2, size=resized, mode="bicubic", align_corners=False)
        top, left = (round((length - size) / 2) for length in resized.shape[2:])
        resized = resized[:, :, top : top + size, left : left + size]
        return all_tokens(self.clip, ((resized - CLIP_MEAN) / CLIP_STD).to(lq.dtype))

    def save(self, folder: Path, *, safe: bool = True) -> dict[str, str]:
        """Writes the release's files; returns the arguments of `convert` by name."""
        lcm = folder / "lcm"
        self.unet.save_pretrained(lcm / "unet", safe_serialization=safe)
        self.vae.save_pretrained(lcm / "vae", safe_serialization=safe)
        (lcm / "scheduler").mkdir()
        (lcm / "scheduler" / "scheduler_config.json").write_text(json.dumps(self.config.schedule.to_json()))
        self.clip.save_pretrained(folder / "clip")
        for name, network in (("visual_encoder", self.visual_encoder), ("spatial_encoder", self.spatial_encoder)):
            wrong = {key: torch.zeros(1) for key in network.state_dict()}
            torch.save({"params": wrong, "params_ema": network.state_dict()}, folder / f"{name}.pth")
        return {
            "lcm": str(lcm),
            "clip": str(folder / "clip"),
            "visual_encoder": folder / "visual_encoder.pth",
            "spatial_encoder": folder / "spatial_encoder.pth",
        }


def unet(config: ModelConfig) -> diffusers.UNet2DConditionModel:
    """The frozen LCM."""
    return randomize(diffusers.UNet2DConditionModel.from_config(config.unet.to_json()), seed=1)


def vae(config: ModelConfig) -> diffusers.AutoencoderKL:
    """The frozen autoencoder."""
    return randomize(diffusers.AutoencoderKL.from_config(config.vae.to_json()), seed=2)


def clip(config: ModelConfig) -> transformers.CLIPVisionModel:
    """The frozen token tower."""
    settings = {key: value for key, value in config.clip_vision.to_json().items() if key != "model_type"}
    return randomize(transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**settings)), seed=3)


def visual_encoder(config: ModelConfig) -> Twin:
    """The trained Visual Encoder."""
    return randomize(Twin(config.visual_encoder), seed=4)


def spatial_encoder(config: ModelConfig) -> diffusers.ControlNetModel:
    """The trained ControlNet."""
    return randomize(diffusers.ControlNetModel.from_config(config.spatial_encoder.to_json()), seed=5)


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
