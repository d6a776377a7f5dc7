"""The model folder: `config.json` with every size and setting, and one safetensors file for each network."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from flax import nnx

from interlcm_jax.diffusion.schedule import ScheduleConfig
from interlcm_jax.errors import InterLCMError, WeightsError, mapping_of, number_problems
from interlcm_jax.files.atomic import whole_file
from interlcm_jax.files.safetensors import open_safetensors
from interlcm_jax.imaging.color_fix import METHODS
from interlcm_jax.models.clip_vision import CLIPVisionConfig
from interlcm_jax.models.config import NetworkConfig
from interlcm_jax.models.controlnet import ControlNetConfig
from interlcm_jax.models.unet import UNetConfig
from interlcm_jax.models.vae import VAEConfig
from interlcm_jax.models.visual_encoder import VisualEncoderConfig
from interlcm_jax.models.weights import ShardingRule, fill, misfits, skeleton

CONFIG = "config.json"
TASKS = {"restoration": "wavelet", "colorization": "none", "inpainting": "none"}
FORMAT = 1
# The small model's: where the restored face begins to be nearer to the original than the face itself.
LEAVE_SHARP = 0.17


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Everything about a model but its weights; a model folder's `config.json`.

    Attributes:
        unet: the frozen LCM.
        vae: the frozen autoencoder.
        clip_vision: the frozen CLIP image encoder.
        visual_encoder: the trained Visual Encoder.
        spatial_encoder: the trained ControlNet.
        schedule: the LCM's noise schedule.
        num_network_calls: network calls of a restoration, 3 or 1: what the trained weights were trained for.
        skipped_steps: first steps of the LCM's schedule that the low-quality face replaces.
        task: what the trained weights do, one of `TASKS`.
        color_fix: the task's default color fix.
        guidance_scale: classifier-free guidance scale that the guidance embedding states.
        image_size: height and width of the aligned faces the weights were trained on, pixels.
        leave_sharp: faces with more detail than this (`faces.detail`) are left as they are, as restoration would take
            from it; None: none is.
        weights: where the weights come from and under which license, by network.
    """

    unet: UNetConfig
    vae: VAEConfig
    clip_vision: CLIPVisionConfig
    visual_encoder: VisualEncoderConfig
    spatial_encoder: ControlNetConfig
    schedule: ScheduleConfig = dataclasses.field(default_factory=ScheduleConfig)
    num_network_calls: int = 3
    skipped_steps: int = 1
    task: str = "restoration"
    color_fix: str = "wavelet"
    guidance_scale: float = 8.0
    image_size: int = 512
    leave_sharp: float | None = None
    weights: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict, hash=False)

    @classmethod
    def released(cls) -> Self:
        """The sizes of the released 3-step model (1.40 G parameters)."""
        return cls(
            UNetConfig.lcm(),
            VAEConfig(),
            CLIPVisionConfig.vit_b_16(),
            VisualEncoderConfig(),
            ControlNetConfig.sd15(),
        )

    @classmethod
    def miniature(cls) -> Self:
        """The smallest model with every part, for tests."""
        return cls(
            UNetConfig.miniature(),
            VAEConfig.miniature(),
            CLIPVisionConfig.miniature(),
            # 32 groups as in the release: no weight tells their number, so conversion takes that for granted.
            dataclasses.replace(VisualEncoderConfig.miniature(), block_out_channels=(32, 64, 96), norm_num_groups=32),
            ControlNetConfig.miniature(),
            image_size=64,
        )

    @classmethod
    def small(cls) -> Self:
        """The model that the package carries: 256 x 256 pixels, trained from nothing (`configs/small.py`)."""
        unet = UNetConfig(
            block_out_channels=(48, 96, 144),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=96,
            num_heads=4,
            time_cond_proj_dim=64,
            norm_num_groups=16,
        )
        vae = VAEConfig(
            block_out_channels=(16, 32, 64, 128),
            layers_per_block=1,
            norm_num_groups=8,
            decoder_block_out_channels=(48, 96, 128, 192),
        )
        clip_vision = CLIPVisionConfig(
            image_size=128,
            patch_size=16,
            hidden_size=96,
            intermediate_size=384,
            num_hidden_layers=6,
            num_attention_heads=4,
        )
        return cls(
            unet,
            vae,
            clip_vision,
            VisualEncoderConfig(
                tokens=clip_vision.num_tokens,
                context_tokens=33,
                features=clip_vision.hidden_size,
                block_out_channels=(32, 64, 128),
            ),
            ControlNetConfig.from_unet(unet, conditioning_embedding_out_channels=(32, 64, 96, 128)),
            # The paper skips one step; so small a prior can't tell a face from as much noise.
            skipped_steps=7,
            guidance_scale=2.0,
            image_size=256,
            leave_sharp=LEAVE_SHARP,
        )

    @property
    def networks(self) -> dict[str, NetworkConfig]:
        """The five networks' configs by name."""
        return {name: getattr(self, name) for name in NETWORKS}

    @property
    def downsampling(self) -> int:
        """Pixels of the image for each latent, along one side."""
        return 2 ** (len(self.vae.block_out_channels) - 1)

    def latent_shape(self, image_shape: Sequence[int]) -> tuple[int, int, int]:
        """Height, width and channels of the latents of (B, H, W, 3) images."""
        _, height, width, _ = image_shape
        return height // self.downsampling, width // self.downsampling, self.vae.latent_channels

    def check(self) -> None:
        """Checks that the networks fit each other, and that the settings exist.

        Raises:
            InterLCMError: two networks don't (every pair is named), or there is no such setting.
        """
        self._check_settings()
        clip, visual, spatial, unet = self.clip_vision, self.visual_encoder, self.spatial_encoder, self.unet
        pairs = {
            "CLIP's tokens and the Visual Encoder's": (clip.num_tokens, visual.tokens),
            "CLIP's width and the Visual Encoder's": (clip.hidden_size, visual.features),
            "the Visual Encoder's width and the UNet's context": (visual.features, unet.cross_attention_dim),
            "the UNet's skip connections and the Spatial Encoder's": (unet.skip_channels(), spatial.skip_channels()),
            "the UNet's context and the Spatial Encoder's": (unet.cross_attention_dim, spatial.cross_attention_dim),
            "the VAE's latents and the UNet's": (self.vae.latent_channels, unet.in_channels),
            "the UNet's latents and the Spatial Encoder's": (unet.in_channels, spatial.in_channels),
            "the UNet's channels in and out": (unet.in_channels, unet.out_channels),
            "the VAE's and the conditioning stack's downsampling": (
                self.downsampling,
                2 ** (len(spatial.conditioning_embedding_out_channels) - 1),
            ),
        }
        if wrong := [f"{what} ({a} and {b})" for what, (a, b) in pairs.items() if a != b]:
            raise InterLCMError(f"the networks don't fit each other: {'; '.join(wrong)}")

    def _check_settings(self) -> None:
        """Every setting of the model itself, by its range."""
        skipped, steps = self.skipped_steps, self.schedule.original_inference_steps
        problems = number_problems("skipped_steps", skipped, 0, steps - 1)
        problems += number_problems(
            "num_network_calls", self.num_network_calls, 1, steps if problems else steps - skipped
        )
        problems += number_problems("guidance_scale", self.guidance_scale, 0, 1000, float)
        if self.leave_sharp is not None:
            problems += number_problems("leave_sharp", self.leave_sharp, 0, 1000, float)
        problems += (size := number_problems("image_size", self.image_size, 1, 2**14))
        if not size and self.image_size % self.downsampling:
            problems.append(f"image_size is {self.image_size}, but must be a multiple of {self.downsampling}")
        for name, allowed in (("task", TASKS), ("color_fix", METHODS)):
            if getattr(self, name) not in list(allowed):
                problems.append(f"{name} is {getattr(self, name)!r}, but must be one of {', '.join(allowed)}")
        if problems:
            raise InterLCMError("; ".join(problems))

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Self:
        """Builds the config from a parsed `config.json`.

        Raises:
            InterLCMError: the file is of another format, or a network's config is missing or wrong.
        """
        if config.get("format") != FORMAT:
            raise InterLCMError(f"format is {config.get('format')!r}, but this version reads {FORMAT}")
        sizes = mapping_of(config, "networks")
        if absent := [name for name in NETWORKS if name not in sizes]:
            raise InterLCMError(f"no network {', '.join(absent)}")
        networks = {name: kind.from_json(mapping_of(sizes, name)) for name, kind in NETWORKS.items()}
        fields = {f.name for f in dataclasses.fields(cls)} - {*NETWORKS, "schedule"}
        rest = {name: value for name, value in config.items() if name in fields}
        origins = mapping_of(config, "weights")
        rest["weights"] = {network: _origin(mapping_of(origins, network)) for network in origins}
        return cls(**networks, schedule=ScheduleConfig.from_json(mapping_of(config, "schedule")), **rest)

    def to_json(self) -> dict[str, Any]:
        """The contents of `config.json`."""
        fields = [f.name for f in dataclasses.fields(self) if f.name not in {*NETWORKS, "schedule"}]
        return {
            "format": FORMAT,
            **{name: getattr(self, name) for name in fields},
            "schedule": self.schedule.to_json(),
            "networks": {name: network.to_json() for name, network in self.networks.items()},
        }


# The networks of a model, in the order they are loaded: the largest first, while memory is emptiest.
NETWORKS: dict[str, type[NetworkConfig]] = {
    "unet": UNetConfig,
    "spatial_encoder": ControlNetConfig,
    "clip_vision": CLIPVisionConfig,
    "vae": VAEConfig,
    "visual_encoder": VisualEncoderConfig,
}


def read_config(folder: Path) -> ModelConfig:
    """Reads a model folder's `config.json`.

    Raises:
        InterLCMError: there is none, it isn't a model folder's, or its networks don't fit each other.
    """
    path = folder / CONFIG
    try:
        config = ModelConfig.from_json(mapping_of({CONFIG: json.loads(path.read_bytes())}, CONFIG))
        config.check()
        return config
    except (FileNotFoundError, NotADirectoryError):
        raise InterLCMError(f"{folder}: not a model folder (no {CONFIG}); make one with interlcm convert") from None
    except RecursionError:
        raise InterLCMError(f"{path}: nested too deep for a config") from None
    except ValueError as error:
        raise InterLCMError(f"{path}: {error}") from error


def _origin(entry: Mapping[str, Any]) -> dict[str, str]:
    # Folders that version 0.1 wrote spell it "licence".
    return {"license" if name == "licence" else name: str(value) for name, value in entry.items()}


def write_config(folder: Path, config: ModelConfig) -> None:
    """Writes a model folder's `config.json`."""
    with whole_file(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(config.to_json(), indent=2) + "\n")


def weights_file(folder: Path, network: str) -> Path:
    """Where a model folder keeps a network's weights."""
    return folder / f"{network}.safetensors"


def load_network(
    folder: Path,
    name: str,
    network: nnx.Module,
    sharding: ShardingRule | None = None,
    *,
    allow_nan: bool = False,
    sizes: str = CONFIG,
) -> None:
    """Fills one of a model folder's networks with its weights (see `models.weights.fill`).

    `sizes` names the source of the network's sizes, for error messages.

    Raises:
        WeightsError: the file is missing or isn't whole; keys are missing, unexpected, mis-shaped or not floating
            point, or weights aren't finite; all are listed.
    """
    path = weights_file(folder, name)
    if not path.is_file():
        raise WeightsError(path, ["no such file"], "The model folder isn't whole; convert or copy it again.")
    tensors = open_safetensors(path)
    if problems := misfits(tensors, {key: spec.shape for key, spec in skeleton(network).items()}):
        raise WeightsError(path, problems, f"The file doesn't fit the sizes in {sizes}.")
    fill(network, tensors, path, sharding, allow_nan=allow_nan)
