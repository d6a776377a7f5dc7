"""LoRA, such as LCM-LoRA: its low-rank updates merged into a UNet's weights (Hu et al. 2021; Luo et al. 2023).

Files name layers as kohya's scripts do (`lora_unet_down_blocks_0_..._to_q.lora_down.weight`), or as diffusers
does (`unet.down_blocks.0....to_q.lora_A.weight`, `.lora.down.weight`, `.processor.to_q_lora.down.weight`).
"""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from interlcm_jax.convert.checkpoints import needed, read_weights
from interlcm_jax.errors import WeightsError, describe
from interlcm_jax.files.hub import resolve
from interlcm_jax.files.safetensors import LazyTensor

FILE = "pytorch_lora_weights"  # stem of the file in a hub repository

# The layer's name and which of its factors a key is.
_FACTORS = (
    r"lora_unet_(?P<layer>.+)\.lora_(?P<factor>down|up)\.weight",
    r"(?:unet\.|base_model\.model\.)?(?P<layer>.+)\.lora_(?P<factor>A|B)(?:\.default)?\.weight",
    r"(?:unet\.)?(?P<layer>.+)\.lora\.(?P<factor>down|up)\.weight",
    r"(?:unet\.)?(?P<layer>.+\.processor\.to_(?:q|k|v|out))_lora\.(?P<factor>down|up)\.weight",
)
_ALPHA = r"(?:lora_unet_|unet\.)?(?P<layer>.+)\.alpha"
_TEXT_ENCODER = r"(?:lora_te\d?_|text_encoder(?:_2)?\.).*"


@dataclasses.dataclass
class _Update:
    """A layer's update: up · down · alpha / rank."""

    down: LazyTensor | None = None
    up: LazyTensor | None = None
    alpha: LazyTensor | None = None


def merge(weights: Mapping[str, LazyTensor], source: str | Path) -> dict[str, LazyTensor]:
    """Adds a LoRA's updates to the weights of a UNet, each when it is read, in float32, and in the weight's own dtype.

    Args:
        weights: the UNet's by diffusers' keys.
        source: the LoRA's file, its folder, or its hub name, like "latent-consistency/lcm-lora-sdv1-5". What it holds
            for text encoders is passed over.

    Raises:
        InterLCMError: there is no such file or repository.
        WeightsError: the file is no LoRA of this UNet; every offending key is named.
    """
    path = resolve(source, needed({"": FILE}))
    tensors = read_weights(path, FILE)
    layers = {key.removesuffix(".weight").replace(".", "_"): key for key in weights if key.endswith(".weight")}
    updates: dict[str, _Update] = {}
    unexpected = []
    for key, tensor in tensors.items():
        if re.fullmatch(_TEXT_ENCODER, key):
            continue
        layer, part = _parse(key)
        if layer in layers:
            setattr(updates.setdefault(layers[layer], _Update()), part, tensor)
        else:
            unexpected.append(key)
    problems = describe("unexpected keys", sorted(unexpected))
    for key, update in updates.items():
        problems += _misfit(key, weights[key].shape, update)
    if problems or not updates:
        raise WeightsError(path, problems or ["no LoRA of a UNet"], "These updates don't fit the UNet they are for.")
    alpha = _published_alpha(path)
    return {**weights, **{key: _merged(weights[key], update, alpha) for key, update in updates.items()}}


def _parse(key: str) -> tuple[str, str]:
    """The layer that a key is of, with underscores for dots, and the field of `_Update`; empty if it is none."""
    if match := re.fullmatch(_ALPHA, key):
        return match["layer"].replace(".", "_"), "alpha"
    for pattern in _FACTORS:
        if match := re.fullmatch(pattern, key):
            layer = re.sub(r"\.processor\.(to_.*)", r".\1", match["layer"])
            layer = re.sub(r"\.to_out$", ".to_out.0", layer)
            return layer.replace(".", "_"), "down" if match["factor"] in ("down", "A") else "up"
    return "", ""


def _misfit(key: str, shape: tuple[int, ...], update: _Update) -> list[str]:
    if update.down is None or update.up is None:
        return [f"{key}: one factor of its update is missing"]
    down, up = update.down.shape, update.up.shape
    fits = len(down) > 1 and down[0] > 0 and math.prod(up) == shape[0] * down[0] and up[:1] == shape[:1]
    if not fits or math.prod(down[1:]) != math.prod(shape[1:]):
        return [f"{key} {shape}: an update of shapes {up} and {down}"]
    return [] if update.alpha is None or math.prod(update.alpha.shape) == 1 else [f"{key}: its alpha is no number"]


def _merged(weight: LazyTensor, update: _Update, published_alpha: float | None) -> LazyTensor:
    def load(index: Any) -> np.ndarray:
        down, up = (np.asarray(tensor.read(), np.float32) for tensor in (update.down, update.up))
        rank = len(down)
        if update.alpha is not None:
            alpha = float(np.asarray(update.alpha.read(), np.float32).reshape(()))
        else:
            alpha = rank if published_alpha is None else published_alpha
        delta = up.reshape(-1, rank) @ down.reshape(rank, -1) * np.float32(alpha / rank)
        full = np.asarray(weight.read(), np.float32) + delta.reshape(weight.shape)
        return full.astype(weight.dtype)[index]

    return dataclasses.replace(weight, load=load)


def _published_alpha(path: Path) -> float | None:
    """The alpha that diffusers writes into a file's header; None where it is the rank.

    Raises:
        WeightsError: the header says that alpha differs from layer to layer, or is scaled in another way.
    """
    file = next(iter(sorted(path.glob(f"{FILE}*.safetensors"))), None) if path.is_dir() else path
    if file is None or file.suffix.lower() not in (".safetensors", ".sft"):
        return None
    with safe_open(file, framework="np") as opened:
        text = (opened.metadata() or {}).get("lora_adapter_metadata")
    try:
        settings = json.loads(text) if text else {}
        if settings.get("unet.alpha_pattern") or settings.get("unet.use_rslora"):
            raise WeightsError(file, ["alpha_pattern and use_rslora aren't implemented"])
        alpha = settings.get("unet.lora_alpha")
        return None if alpha is None else float(alpha)
    except (AttributeError, TypeError, json.JSONDecodeError) as error:
        raise WeightsError(file, [f"its header isn't diffusers' ({error})"]) from error
