"""MUSIQ's weights as they are published: pyiqa's in PyTorch, and Google's in the NumPy format of its flax.nn 0.3.3."""

import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from interlcm_jax.convert.checkpoints import read_weights
from interlcm_jax.convert.rules import CONV2D, LINEAR, Rule, Table, to_jax
from interlcm_jax.errors import WeightsError
from interlcm_jax.files.safetensors import LazyTensor, from_array

_ENCODER, _LAYER = "transformer_encoder", r"transformer_encoder.transformer.encoderblock_\1"

TABLE = Table(
    rules=(
        Rule(r"(conv_root|block1\.conv\w+)\.kernel", r"\1.weight", CONV2D),
        Rule(r"(gn_root|block1\.gn\w+)\.scale", r"\1.weight"),
        Rule(r"(embedding|head)\.kernel", r"\1.weight", LINEAR),
        Rule(r"((?:gn_root|block1|embedding|head).*)\.bias", r"\1.bias"),
        Rule(r"position_embedding", f"{_ENCODER}.posembed_input.position_emb"),
        Rule(r"scale_embedding", f"{_ENCODER}.scaleembed_input.scale_emb"),
        Rule(r"class_token", f"{_ENCODER}.cls"),
        Rule(r"layers\.(\d+)\.(.*)\.kernel", rf"{_LAYER}.\2.weight", LINEAR),
        Rule(r"layers\.(\d+)\.(.*)\.scale", rf"{_LAYER}.\2.weight"),
        Rule(r"layers\.(\d+)\.(.*)\.bias", rf"{_LAYER}.\2.bias"),
        Rule(r"encoder_norm\.scale", f"{_ENCODER}.encoder_norm.weight"),
        Rule(r"encoder_norm\.bias", f"{_ENCODER}.encoder_norm.bias"),
    ),
)

# The file is a training state; the rest of it is the optimizer's.
_WEIGHTS = "opt/target/"
# flax.nn counts the layers of a block, of whatever kind.
_PARTS = {
    "norm1": "LayerNorm_0",
    r"attention\.(query|key|value|out)": r"MultiHeadDotProductAttention_1/\2",
    "norm2": "LayerNorm_2",
    r"mlp\.fc1": "MlpBlock_3/Dense_0",
    r"mlp\.fc2": "MlpBlock_3/Dense_1",
}
_LEAF = r"\.(?P<leaf>kernel|scale|bias)"

OFFICIAL_TABLE = Table(
    rules=(
        Rule(rf"(conv_root|gn_root|embedding|head){_LEAF}", rf"{_WEIGHTS}\1/\g<leaf>"),
        Rule(rf"block1\.(\w+){_LEAF}", rf"{_WEIGHTS}block1/unit1/\1/\g<leaf>"),
        Rule(r"position_embedding", f"{_WEIGHTS}Transformer/posembed_input/pos_embedding"),
        Rule(r"scale_embedding", f"{_WEIGHTS}Transformer/scaleembed_input/scale_embedding"),
        Rule(r"class_token", f"{_WEIGHTS}Transformer/cls"),
        *(
            Rule(rf"layers\.(\d+)\.{ours}{_LEAF}", rf"{_WEIGHTS}Transformer/encoderblock_\1/{theirs}/\g<leaf>")
            for ours, theirs in _PARTS.items()
        ),
        Rule(rf"encoder_norm{_LEAF}", rf"{_WEIGHTS}Transformer/encoder_norm/\g<leaf>"),
    ),
)
_OURS = Table(rules=(Rule(r"(.*)", r"\1"),))

# Weights with axes of their own for heads, or for the batch: their rank, and the shape without.
_UNGROUPED = {
    r"(query|key|value)/kernel": (3, lambda width, heads, head: (width, heads * head)),
    r"(query|key|value)/bias": (2, lambda heads, head: (heads * head,)),
    r"out/kernel": (3, lambda heads, head, width: (heads * head, width)),
    r"gn\w+/(scale|bias)": (4, lambda *shape: shape[-1:]),
    r"scale_embedding": (3, lambda _, scales, width: (scales, width)),
}


def read_musiq(path: Path, skeleton: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, LazyTensor]:
    """MUSIQ's weights by our paths, still unread but for Google's.

    Args:
        path: pyiqa's `.pth`, Google's `.npz`, or a `.safetensors` with our own paths.
        skeleton: the network's weights by path (see `models.weights.skeleton`).

    Raises:
        WeightsError: the file isn't whole or isn't MUSIQ's; every offending key is named.
    """
    if path.suffix.lower() == ".npz":
        return to_jax(read_official(path), skeleton, OFFICIAL_TABLE, path)
    return to_jax(read_weights(path), skeleton, _OURS if path.suffix.lower() == ".safetensors" else TABLE, path)


def read_official(path: Path) -> dict[str, LazyTensor]:
    """The weights of a training state of Google's by key, heads merged into one axis as everywhere else here.

    Raises:
        WeightsError: it isn't a whole `.npz` file of plain arrays.
    """
    again = "Download or copy it again."
    if not zipfile.is_zipfile(path):
        raise WeightsError(path, ["not a whole NumPy .npz file"], again)
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files if key.startswith(_WEIGHTS)}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise WeightsError(path, [f"not a whole NumPy .npz file ({error})"], again) from error
    return {key: from_array(_ungrouped(key, array), path) for key, array in arrays.items()}


def _ungrouped(key: str, array: np.ndarray) -> np.ndarray:
    for pattern, (rank, shape) in _UNGROUPED.items():
        if re.fullmatch(rf".*/{pattern}", key) and array.ndim == rank:
            return array.reshape(shape(*array.shape))
    return array
