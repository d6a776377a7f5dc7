"""Writers of the formats that PyTorch, diffusers and transformers load; the callers make them whole (see `atomic`)."""

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from interlcm_jax.convert.checkpoints import DIFFUSERS
from interlcm_jax.convert.pickles import import_torch
from interlcm_jax.files.safetensors import LazyTensor, write_safetensors


def write_torch(
    path: Path, weights: Mapping[str, LazyTensor], wrappers: Sequence[str] = ("params", "params_ema")
) -> None:
    """Writes a .pth file as InterLCM's release has it; needs PyTorch and the memory for all of the weights.

    Args:
        path: the file; overwritten.
        weights: tensors by PyTorch key.
        wrappers: names the one state dict is stored under (its elements once); none saves it bare.

    Raises:
        InterLCMError: PyTorch isn't installed.
    """
    torch = import_torch(path)
    state = {key: _to_torch(tensor.read(), torch) for key, tensor in weights.items()}
    torch.save({wrapper: state for wrapper in wrappers} if wrappers else state, path)


def write_folder(
    folder: Path, config: Mapping[str, Any], weights: Mapping[str, LazyTensor], stem: str = DIFFUSERS
) -> None:
    """Writes `config.json` and `{stem}.safetensors`, as `from_pretrained` of diffusers or transformers reads them.

    Args:
        folder: made if need be.
        config: the library's own settings, `_class_name` or `architectures` included.
        weights: tensors by PyTorch key; written one at a time.
        stem: `checkpoints.DIFFUSERS` or `checkpoints.TRANSFORMERS`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dict(config), indent=2) + "\n")
    write_safetensors(folder / f"{stem}.safetensors", weights, metadata={"format": "pt"})


def write_decoder_loader(folder: Path) -> str:
    """Writes a program that loads the autoencoder of an exported model into diffusers' class; returns its name.

    It is for an autoencoder whose decoder has widths of its own, which diffusers' `from_pretrained` doesn't know.
    """
    name = "load_vae.py"
    text = resources.files("interlcm_jax").joinpath("templates", name).read_text(encoding="utf-8")
    (folder / name).write_text(text, encoding="utf-8")
    return name


def _to_torch(array: np.ndarray, torch: Any) -> Any:
    # PyTorch's elements in PyTorch's order: a permuted view would be stored with its odd strides.
    array = np.array(array, order="C")
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
