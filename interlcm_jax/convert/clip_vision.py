"""CLIP's vision tower: Hugging Face's layout is the table, OpenAI's is renamed into it."""

import dataclasses
import math
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from interlcm_jax.convert.rules import CONV2D, LINEAR, Rule, Table
from interlcm_jax.errors import WeightsError, describe
from interlcm_jax.files.safetensors import LazyTensor
from interlcm_jax.models.clip_vision import CLIPVisionConfig

TABLE = Table(
    rules=(
        Rule(r"embeddings\.class_embedding", "vision_model.embeddings.class_embedding"),
        Rule(r"embeddings\.position_embedding", "vision_model.embeddings.position_embedding.weight"),
        Rule(r"embeddings\.patch_embedding\.kernel", "vision_model.embeddings.patch_embedding.weight", CONV2D),
        Rule(r"(encoder\..*)\.kernel", r"vision_model.\1.weight", LINEAR),
        Rule(r"(.*)\.scale", r"vision_model.\1.weight"),
        Rule(r"(.*)\.bias", r"vision_model.\1.bias"),
    ),
    # A vision tower saved alone by transformers 5 has no prefix.
    renames=((r"^(?=(embeddings|pre_layrnorm|encoder|post_layernorm)\.)", "vision_model."),),
    ignored=(
        r"vision_model\.embeddings\.position_ids",
        r"text_model\..*",
        r"(text|visual)_projection\.weight",
        r"logit_scale",
    ),
)

# OpenAI's models all have heads this wide; the count is written nowhere in the file.
OPENAI_HEAD_DIM = 64

_OPENAI_RENAMES = (
    (r"visual\.class_embedding", "vision_model.embeddings.class_embedding"),
    (r"visual\.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    (r"visual\.conv1\.weight", "vision_model.embeddings.patch_embedding.weight"),
    (r"visual\.ln_pre\.(.*)", r"vision_model.pre_layrnorm.\1"),
    (r"visual\.ln_post\.(.*)", r"vision_model.post_layernorm.\1"),
    (r"visual\.transformer\.resblocks\.(\d+)\.ln_([12])\.(.*)", r"vision_model.encoder.layers.\1.layer_norm\2.\3"),
    (
        r"visual\.transformer\.resblocks\.(\d+)\.attn\.out_proj\.(.*)",
        r"vision_model.encoder.layers.\1.self_attn.out_proj.\2",
    ),
    (r"visual\.transformer\.resblocks\.(\d+)\.mlp\.c_fc\.(.*)", r"vision_model.encoder.layers.\1.mlp.fc1.\2"),
    (r"visual\.transformer\.resblocks\.(\d+)\.mlp\.c_proj\.(.*)", r"vision_model.encoder.layers.\1.mlp.fc2.\2"),
)
_OPENAI_FUSED = re.compile(r"visual\.transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)")
_OPENAI_IGNORED = re.compile(
    r"visual\.proj|transformer\..*|token_embedding\.weight|positional_embedding|ln_final\..*|text_projection"
    r"|logit_scale|input_resolution|context_length|vocab_size"
)


def is_openai(keys: Collection[str]) -> bool:
    """Whether these are the keys of a CLIP in OpenAI's own layout, with the vision tower under `visual.`."""
    return "visual.class_embedding" in keys


def from_openai(source: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """Renames OpenAI's layout into Hugging Face's, still unread; q, k and v are cut out of their fused tensor.

    Keys that OpenAI's layout doesn't have are kept, so that `to_jax` names them as unexpected.
    """
    renamed = {}
    for key, tensor in source.items():
        if _OPENAI_IGNORED.fullmatch(key):
            continue
        if match := _OPENAI_FUSED.fullmatch(key):
            prefix = f"vision_model.encoder.layers.{match[1]}.self_attn"
            parts = zip("qkv", _thirds(tensor), strict=True)
            renamed |= {f"{prefix}.{name}_proj.{match[2]}": part for name, part in parts}
            continue
        targets = [m.expand(new) for old, new in _OPENAI_RENAMES if (m := re.fullmatch(old, key))]
        renamed[targets[0] if targets else key] = tensor
    return renamed


def openai_config(source: Mapping[str, LazyTensor]) -> CLIPVisionConfig:
    """Reads the tower's sizes off the shapes of OpenAI's weights, which carry no config.

    Raises:
        WeightsError: a weight that tells a size is missing or mis-shaped.
    """
    needed = [
        f"visual.{n}" for n in ("conv1.weight", "positional_embedding", "transformer.resblocks.0.mlp.c_fc.weight")
    ]
    if missing := [key for key in needed if key not in source]:
        origin = next((tensor.source for tensor in source.values()), "OpenAI CLIP")
        raise WeightsError(origin, describe("missing keys", missing))
    ranks = (4, 2, 2)
    odd = [f"{k} {source[k].shape}" for k, rank in zip(needed, ranks, strict=True) if len(source[k].shape) != rank]
    if odd or source[needed[0]].shape[0] % OPENAI_HEAD_DIM:
        odd = odd or [f"{needed[0]} {source[needed[0]].shape}: heads are {OPENAI_HEAD_DIM} wide"]
        raise WeightsError(source[needed[0]].source, describe("mis-shaped keys", odd))
    (width, _, patch, _), (tokens, _), (hidden, _) = (source[key].shape for key in needed)
    layers = {m[1] for key in source if (m := re.match(r"visual\.transformer\.resblocks\.(\d+)\.", key))}
    return CLIPVisionConfig(
        image_size=math.isqrt(tokens - 1) * patch,
        patch_size=patch,
        hidden_size=width,
        intermediate_size=hidden,
        num_hidden_layers=len(layers),
        num_attention_heads=width // OPENAI_HEAD_DIM,
    )


def _thirds(tensor: LazyTensor) -> Iterator[LazyTensor]:
    """The three equal parts of a fused tensor along its first axis; each reads its own rows only."""
    rows = tensor.shape[0] // 3
    for start in (0, rows, 2 * rows):

        def load(index: Any, start: int = start) -> Any:
            return tensor.read((slice(start, start + rows),))[index]

        yield dataclasses.replace(tensor, shape=(rows, *tensor.shape[1:]), load=load)
