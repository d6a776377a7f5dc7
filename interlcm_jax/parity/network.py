"""A single published network against PyTorch, on random inputs: for who takes a UNet, and no InterLCM."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import diffusers
import jax.numpy as jnp
import torch
import transformers
from jax.typing import DTypeLike

from interlcm_jax.convert.model import CLASSES
from interlcm_jax.convert.network import load_published
from interlcm_jax.errors import InterLCMError
from interlcm_jax.models.config import NetworkConfig
from interlcm_jax.parity.model import PARTS, Step, check_network, make_twins

# Tokens of a prompt in Stable Diffusion 1.x, and a timestep amid its schedule.
TOKENS, TIMESTEP = 77, 499

_PYTORCH: Mapping[str, type] = {
    "unet": diffusers.UNet2DConditionModel,
    "spatial_encoder": diffusers.ControlNetModel,
    "vae": diffusers.AutoencoderKL,
    "clip_vision": transformers.CLIPVisionModel,
}


def check_published(
    name: str,
    folder: str | Path,
    *,
    size: int = 512,
    seed: int = 0,
    dtype: DTypeLike = jnp.float32,
    **options: Any,
) -> Iterator[Step]:
    """Compares a network from a diffusers or transformers folder with PyTorch, on random inputs.

    Args:
        name: "unet", "spatial_encoder" (a ControlNet), "vae" (both halves) or "clip_vision".
        folder: the network's own folder, with its `config.json` and weights.
        size: height and width of the images, pixels; CLIP has its own.
        seed: of the inputs.
        dtype: JAX's compute dtype; PyTorch's is float32.
        **options: those of `ladder.climb`.

    Raises:
        InterLCMError: there is no such folder, or its config asks for what isn't implemented.
        WeightsError: the weights don't fit the config.
    """
    if name not in _PYTORCH:
        raise InterLCMError(f"{name!r} is no network; choose one of {', '.join(_PYTORCH)}")
    kind, table = CLASSES[name]
    network = load_published(kind, folder, dtype=dtype)
    module = _PYTORCH[name].from_pretrained(folder).eval().float()
    trace = _inputs(name, network.config, size, torch.Generator().manual_seed(seed))
    for part, call in PARTS.items():
        if part.partition(".")[0] == name:
            with torch.no_grad():
                trace[call.gives] = call.torch(module, *(trace[key] for key in call.takes))
            yield check_network(make_twins(part, network, module, trace), table, **options)


def _inputs(name: str, config: NetworkConfig, size: int, generator: torch.Generator) -> dict[str, Any]:
    """Random tensors by the names in `PARTS`, of the shapes that the network takes."""

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    def images(channels: int, side: int) -> torch.Tensor:
        return 2 * torch.rand((1, channels, side, side), generator=generator) - 1

    if name == "clip_vision":
        return {"pixels": normal(1, 3, config.image_size, config.image_size)}
    if name == "vae":
        down = 2 ** (len(config.block_out_channels) - 1)
        lq = images(config.in_channels, size)
        return {"lq": lq, "unscaled": normal(1, config.latent_channels, size // down, size // down)}
    down = 8
    if name == "spatial_encoder":
        down = 2 ** (len(config.conditioning_embedding_out_channels) - 1)
    side = size // down
    found = {
        "noisy.1": normal(1, config.in_channels, side, side),
        "timestep.1": torch.tensor([TIMESTEP]),
        "context": normal(1, TOKENS, config.cross_attention_dim),
        "cond": None,
    }
    if name == "spatial_encoder":
        return {**found, "lq": images(config.conditioning_channels, size)}
    if config.time_cond_proj_dim is not None:
        found["cond"] = normal(1, config.time_cond_proj_dim)
    return {**found, "residuals": None}
