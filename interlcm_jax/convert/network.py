"""Single networks from the files that are published: for those who want an SD 1.5 UNet in JAX, and no InterLCM."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from interlcm_jax.arguments import FLOATING, check_dtype
from interlcm_jax.convert import clip_vision, compvis, controlnet, unet, vae
from interlcm_jax.convert.checkpoints import DIFFUSERS, TRANSFORMERS, needed, read_json, read_weights
from interlcm_jax.convert.recognize import recognize
from interlcm_jax.convert.rules import to_jax
from interlcm_jax.diffusion.schedule import ScheduleConfig
from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.hub import matching, resolve
from interlcm_jax.files.safetensors import LazyTensor
from interlcm_jax.models.clip_vision import CLIPVision, CLIPVisionConfig
from interlcm_jax.models.config import NetworkConfig
from interlcm_jax.models.controlnet import ControlNet, ControlNetConfig
from interlcm_jax.models.unet import UNet2DCondition, UNetConfig
from interlcm_jax.models.vae import AutoencoderKL, VAEConfig
from interlcm_jax.models.weights import ShardingRule, abstract, fill, skeleton

Network = TypeVar("Network", bound=nnx.Module)
Config = TypeVar("Config", bound=NetworkConfig)

SCHEDULER = "scheduler/scheduler_config.json"
_PUBLISHED = {
    UNet2DCondition: (UNetConfig, unet.TABLE, DIFFUSERS),
    ControlNet: (ControlNetConfig, controlnet.TABLE, DIFFUSERS),
    AutoencoderKL: (VAEConfig, vae.TABLE, DIFFUSERS),
    CLIPVision: (CLIPVisionConfig, clip_vision.TABLE, TRANSFORMERS),
}
# Those that are also published in CompVis' layout, without a config.
_COMPVIS = {
    UNet2DCondition: compvis.read_unet,
    ControlNet: compvis.read_controlnet,
    AutoencoderKL: compvis.read_vae,
}
# Settings of a UNet that may be listed for each of its blocks, which here are all alike.
_PER_BLOCK = (
    "attention_head_dim",
    "layers_per_block",
    "num_attention_heads",
    "only_cross_attention",
    "transformer_layers_per_block",
)


def load_published(
    network: type[Network],
    source: str | Path,
    subfolder: str = "",
    *,
    revision: str | None = None,
    variant: str | None = None,
    dtype: DTypeLike = jnp.float32,
    param_dtype: DTypeLike | None = None,
    sharding: ShardingRule | None = None,
    allow_nan: bool = False,
    **options: Any,
) -> Network:
    """Loads a network from a diffusers or transformers folder, from the hub or from one file, onto its sharding.

    `load_published(UNet2DCondition, "stable-diffusion-v1-5/stable-diffusion-v1-5", "unet")`, for one.

    Args:
        network: `UNet2DCondition`, `ControlNet`, `AutoencoderKL` or `CLIPVision`.
        source: the folder or hub name; or a file, which is a Stable Diffusion 1 checkpoint in CompVis' layout
            (`.safetensors` or `.ckpt`), or else has its `config.json` beside it.
        subfolder: where in it the network's `config.json` and weights are.
        revision: a branch, tag or commit of the hub's repository.
        variant: like "fp16", to take that variant's files.
        dtype: compute dtype.
        param_dtype: dtype the weights are held in; by default the compute dtype.
        sharding: where each weight goes: one sharding for all, or a function from (path, shape).
        allow_nan: load weights with NaN or infinity in them all the same.
        **options: the network's others, such as `remat`.

    Raises:
        InterLCMError: it is another network, there is no such folder, repository or dtype, or the config asks for what
            isn't implemented.
        WeightsError: the weights don't fit the config; every offending key is named.
    """
    if network not in _PUBLISHED:
        known = ", ".join(each.__name__ for each in _PUBLISHED)
        raise InterLCMError(f"network is {network!r}, but must be one of {known}")
    dtypes = {
        name: check_dtype(each, FLOATING) for name, each in (("dtype", dtype), ("param_dtype", param_dtype or dtype))
    }
    table = _PUBLISHED[network][1]
    config, tensors, origin = _read(network, source, subfolder, revision, variant)
    loaded = abstract(lambda rngs: network(config, rngs=rngs, **dtypes, **options))
    weights = to_jax(tensors, skeleton(loaded), table, origin)
    fill(loaded, weights, origin, sharding, allow_nan=allow_nan)
    return loaded


def _read(
    network: type[nnx.Module], source: str | Path, subfolder: str, revision: str | None, variant: str | None
) -> tuple[NetworkConfig, dict[str, LazyTensor], Path]:
    """A network's config, its tensors, unread, and where they are."""
    kind, _, stem = _PUBLISHED[network]
    config_file = f"{subfolder}/config.json" if subfolder else "config.json"
    folder = resolve(source, needed({subfolder: stem}, [config_file], variant), revision)
    if folder.is_file():
        tensors = read_weights(folder)
        if network in _COMPVIS and is_compvis(tensors):
            return *_COMPVIS[network](tensors, folder), folder
        return read_network_config(kind, folder.parent / "config.json"), tensors, folder
    folder = folder / subfolder
    if inner := [] if (folder / "config.json").is_file() else networks_inside(folder):
        raise InterLCMError(f"{folder}: no single network; name one of its subfolders: {', '.join(inner)}")
    return read_network_config(kind, folder / "config.json"), read_weights(folder, stem, variant), folder


def is_compvis(keys: Collection[str]) -> bool:
    """Whether these are the keys of a file in CompVis' layout."""
    return "CompVis" in (recognize(keys) or "")


def networks_inside(folder: Path) -> list[str]:
    """The subfolders that hold a network, as a pipeline's folder of diffusers has them."""
    return sorted(path.parent.name for path in folder.glob("*/config.json"))


def read_network_config(kind: type[Config], path: Path) -> Config:
    """Reads a published `config.json`.

    Raises:
        InterLCMError: it isn't there, isn't JSON, or asks for what isn't implemented.
    """
    settings = read_json(path)
    widths, wanted = settings.get("block_out_channels"), settings.get("time_embedding_dim")
    if wanted is not None and isinstance(widths, list) and widths and wanted != 4 * widths[0]:
        raise InterLCMError(f"{path}: time_embedding_dim={wanted!r} (only {4 * widths[0]!r} is implemented)")
    for name in _PER_BLOCK:
        values = settings.get(name)
        if isinstance(values, list) and values and all(value == values[0] for value in values):
            settings[name] = values[0]
    try:
        return kind.from_json(settings)
    except InterLCMError as error:
        raise InterLCMError(f"{path}: {error}") from error


def read_schedule(source: str | Path) -> ScheduleConfig:
    """The noise schedule of a diffusers pipeline's folder or repository; a folder without one has `ScheduleConfig`'s.

    Raises:
        InterLCMError: there is no such folder or repository, or it asks for what isn't implemented.
    """
    path = resolve(source, matching(SCHEDULER)) / SCHEDULER
    return read_network_config(ScheduleConfig, path) if path.exists() else ScheduleConfig()
