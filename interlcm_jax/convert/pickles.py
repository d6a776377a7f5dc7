"""PyTorch's own files (.pth, .pt, .bin, .ckpt): the tensors in them, read without running what a pickle may ask for.

Besides tensors a training leaves numbers, dates and settings in such a file. These are read where they are plain values
and passed over; anything else is named and refused, since making it would run code.
"""

import argparse
import datetime
import pathlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from interlcm_jax.errors import InterLCMError, WeightsError, describe
from interlcm_jax.files.paths import to_local
from interlcm_jax.files.safetensors import LazyTensor

# What stands beside the tensors of a state dict and is no weight.
_DATES = (datetime.date, datetime.time, datetime.datetime, datetime.timedelta, datetime.timezone)
_ASIDE = (int, float, str, bytes, type(None), *_DATES, np.generic, argparse.Namespace, pathlib.PurePath)


def read_pickle(path: Path) -> Any:
    """Loads a pickle of tensors and plain values.

    Raises:
        WeightsError: the file isn't whole, or its pickle would run code.
        InterLCMError: PyTorch isn't installed.
    """
    again = "Download or copy it again."
    with open(path, "rb") as file:
        head = file.read(2)
    zipped = head == b"PK"
    if not zipped and not head.startswith(b"\x80"):
        raise WeightsError(path, ["not a PyTorch file"], again)
    torch = import_torch(path)
    try:
        if zipped and _is_torchscript(path):
            advice = "Save its weights with torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE), if you trust it."
            raise WeightsError(path, ["a TorchScript archive, which is a program, so it was not loaded"], advice)
        with torch.serialization.safe_globals(_plain_values()):
            # Files from before PyTorch 1.6 aren't zips and can't be mapped.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except WeightsError:
        raise
    except pickle.UnpicklingError as error:
        names = re.search(r"GLOBAL (\S+)", str(error))
        if names is None and "Unsupported operand" in str(error):
            raise WeightsError(path, ["not a whole PyTorch file"], again) from error
        reason = f"its pickle would run code{f' ({names[1]})' if names else ''}, so it was not loaded"
        advice = "Ask for the weights as safetensors, or as a plain state dict: torch.save(model.state_dict(), FILE)."
        raise WeightsError(path, [reason], advice) from error
    except Exception as error:  # a damaged file makes PyTorch and zipfile raise nearly anything
        raise WeightsError(path, [f"not a whole PyTorch file ({error})"], again) from error


def read_plain(path: str | Path) -> dict[str, Any]:
    """Reads a pickled dict of tensors, NumPy arrays, numbers and strings; tensors become arrays.

    Raises:
        WeightsError: there is no such file, it isn't whole, isn't a dict, or its pickle would run code.
        InterLCMError: PyTorch isn't installed.
    """
    path = to_local(path)
    if not path.is_file():
        raise WeightsError(path, ["no such file"])
    values = read_pickle(path)
    if not isinstance(values, Mapping):
        raise WeightsError(path, [f"a {type(values).__name__} instead of a dict"])
    tensors = {key: value for key, value in values.items() if isinstance(value, import_torch(path).Tensor)}
    return {**values, **{key: tensor.read() for key, tensor in lazy_tensors(tensors, path).items()}}


def lazy_tensors(state: Mapping[str, Any], path: Path) -> dict[str, LazyTensor]:
    """The tensors of a loaded state dict; numbers, strings, dates and settings beside them are passed over.

    Raises:
        WeightsError: other entries aren't plain tensors, such as another dict or a sparse tensor; all are named.
    """
    torch = import_torch(path)
    tensors, odd = {}, []
    for key, value in state.items():
        if not isinstance(value, torch.Tensor):
            if not isinstance(value, _ASIDE):
                odd.append(f"{key} ({type(value).__name__})")
        elif value.is_meta:
            odd.append(f"{key} (a meta tensor, which has no numbers)")
        elif value.layout != torch.strided or value.is_quantized:
            odd.append(f"{key} ({type(value).__name__})")
        elif value.is_floating_point() and value.element_size() == 1:
            # One byte a float: NumPy has no such type, and no network here comes in it.
            odd.append(f"{key} ({value.dtype})")
        else:
            tensors[key] = _tensor(value.detach(), path, torch)
    if odd:
        raise WeightsError(path, describe("entries that aren't plain tensors", odd), "Is it a whole training state?")
    return tensors


def import_torch(path: Path) -> Any:
    """PyTorch, which only its own file format needs; `path` is for the message.

    Raises:
        InterLCMError: it isn't installed.
    """
    try:
        import torch
    except ImportError as error:
        raise InterLCMError(f"{path}: this format needs PyTorch: pip install 'interlcm-jax[parity]'") from error
    return torch


def _tensor(tensor: Any, path: Path, torch: Any) -> LazyTensor:
    # Views that stand for their conjugate or negative have no NumPy form until that is carried out.
    tensor = tensor.resolve_conj().resolve_neg()
    # NumPy has no bfloat16 of its own: its bits pass as integers.
    brain = tensor.dtype == torch.bfloat16
    array = tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if brain else tensor.numpy()
    return LazyTensor(array.shape, array.dtype, path, lambda index: np.array(array[index]))


class _LeftOut:
    """Stands for an object of PyTorch Lightning, whose classes needn't be here."""

    def __init__(self, *arguments: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


# What Lightning's checkpoints name beside the state dict, by the packages it has been published as.
_LIGHTNING = {
    "callbacks.model_checkpoint.ModelCheckpoint": _LeftOut,
    "callbacks.early_stopping.EarlyStopping": _LeftOut,
    "utilities.enums.PrecisionType": _LeftOut,
    "utilities.parsing.AttributeDict": dict,
}
_PATHS = {"PosixPath": pathlib.PurePosixPath, "WindowsPath": pathlib.PureWindowsPath}


def _plain_values() -> list[Any]:
    """What pickles of plain values name. None of it runs anything else."""
    core = [f"numpy.{name}.multiarray" for name in ("core", "_core")]  # of NumPy 1 and of NumPy 2
    reconstruct, scalar = np.zeros(0).__reduce__()[0], np.float64(0).__reduce__()[0]
    kinds = (np.bool_, np.float16, np.float32, np.float64, np.int8, np.uint8, np.int16, np.int32, np.int64, np.str_)
    arrays = [np.ndarray, np.dtype, *(type(np.dtype(kind)) for kind in kinds)]
    others = [argparse.Namespace, dict, list, int, float]
    renamed = {f"{name}._reconstruct": reconstruct for name in core} | {f"{name}.scalar": scalar for name in core}
    # A dict as such is all that the reader fills.
    renamed["collections.defaultdict"] = _empty_dict
    renamed |= {f"{module}.{name}": kind for module in ("pathlib", "pathlib._local") for name, kind in _PATHS.items()}
    for package in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric"):
        renamed |= {f"{package}.{name}": kind for name, kind in _LIGHTNING.items()}
    return [*arrays, *_DATES, *others, *((kind, name) for name, kind in renamed.items())]


def _empty_dict(*default: Any) -> dict[Any, Any]:
    return {}


def _is_torchscript(path: Path) -> bool:
    """Whether this is a TorchScript archive, as OpenAI publishes CLIP, and not a saved state dict."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
