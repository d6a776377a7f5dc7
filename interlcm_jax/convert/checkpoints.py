"""Readers of the formats PyTorch weights come in: safetensors, pickles, shards with an index, and folders of these.

Nothing here knows a network: the result is a tensor by key, unread. Only pickles (.bin, .pth, .pt) need PyTorch.
"""

import contextlib
import dataclasses
import json
import pickle
import re
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from interlcm_jax.errors import InterLCMError, WeightsError, describe
from interlcm_jax.files.safetensors import LazyTensor, open_safetensors

DIFFUSERS, TRANSFORMERS = "diffusion_pytorch_model", "model"  # stems of the files in the two libraries' folders
_PICKLED = (".bin", ".pth", ".pt")
_WRAPPERS = ("params_ema", "params", "state_dict")


def read_weights(path: str | Path, stem: str = DIFFUSERS, variant: str | None = None) -> dict[str, LazyTensor]:
    """Lists the tensors of a file or folder by their PyTorch keys, without reading them.

    Args:
        path: a .safetensors, .bin, .pth or .pt file, an index of shards, or a folder of diffusers or transformers.
        stem: what a folder's files are called: `DIFFUSERS` or `TRANSFORMERS`.
        variant: like "fp16", to take a folder's `{stem}.fp16.safetensors`; None prefers full precision.

    Raises:
        WeightsError: there are no such weights, or they aren't whole, or their pickle would run code.
        InterLCMError: the file is a pickle and PyTorch isn't installed.
    """
    path = Path(path)
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir())
        name = weight_file(names, stem, variant)
        if name is None:
            raise WeightsError(path, [_nothing(stem, variant)], f"The folder holds: {', '.join(names) or 'nothing'}")
        path = path / name
    return _read_shards(path) if path.suffix == ".json" else _read_file(path)


def weight_file(names: Collection[str], stem: str, variant: str | None = None) -> str | None:
    """Which of a folder's files to read: full precision over half, then safetensors over pickle; None if none fits."""
    candidates = (name for v in ([variant] if variant else [None, "fp16"]) for name in _spellings(stem, v))
    return next((name for name in candidates if name in names), None)


def needed(
    stems: Mapping[str, str], files: Sequence[str] = (), variant: str | None = None
) -> Callable[[Collection[str]], list[str]]:
    """Which files of a repository hold the weights of some of its folders; for `hub.resolve`.

    Args:
        stems: the stem of the weights in each folder, like {"unet": DIFFUSERS}; "" is the repository itself.
        files: other files to fetch, like "unet/config.json".
        variant: as in `read_weights`.
    """

    def select(names: Collection[str]) -> list[str]:
        chosen, problems = list(files), describe("missing files", [f for f in files if f not in names])
        for folder, stem in stems.items():
            prefix = f"{folder}/" if folder else ""
            inside = [n.removeprefix(prefix) for n in names if n.startswith(prefix)]
            name = weight_file(inside, stem, variant)
            if name is None:
                problems.append(f"{folder or 'top folder'}: {_nothing(stem, variant)}")
                continue
            chosen += [prefix + n for n in (name, *_shards(name, inside))]
        if problems:
            raise InterLCMError("; ".join(problems))
        return chosen

    return select


def unwrap(state: Any, origin: str | Path) -> dict[str, Any]:
    """The state dict inside a loaded pickle: `params_ema` before `params` (InterLCM, BasicSR), `state_dict` or itself.

    A `module.` that data parallelism put before every key is dropped.
    """
    if isinstance(state, Mapping):
        state = next((state[wrapper] for wrapper in _WRAPPERS if wrapper in state), state)
    if not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
        raise WeightsError(origin, [f"a {type(state).__name__} instead of a state dict"])
    parallel = all(key.startswith("module.") for key in state)
    return {key.removeprefix("module.") if parallel else key: value for key, value in state.items()}


def read_plain(path: str | Path) -> dict[str, Any]:
    """Reads a pickled dict of tensors, NumPy arrays, numbers and strings; tensors become arrays.

    Raises:
        WeightsError: there is no such file, it isn't whole, isn't a dict, or its pickle would run code.
        InterLCMError: PyTorch isn't installed.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(path, ["no such file"])
    torch = import_torch(path)
    with torch.serialization.safe_globals(_numpy_globals()):
        values = _load_pickle(path)
    if not isinstance(values, Mapping):
        raise WeightsError(path, [f"a {type(values).__name__} instead of a dict"])
    return {key: value.numpy() if isinstance(value, torch.Tensor) else value for key, value in values.items()}


@contextlib.contextmanager
def checked(tensors: Mapping[str, LazyTensor], origin: str | Path) -> Iterator[dict[str, LazyTensor]]:
    """Yields the same tensors, and at the end of the block refuses those that were read with NaN or infinity in them.

    Raises:
        WeightsError: on leaving the block; all the tensors are named.
    """
    damaged = set()

    def watched(key: str, tensor: LazyTensor) -> LazyTensor:
        def load(index: Any) -> np.ndarray:
            array = tensor.read(index)
            if not np.isfinite(array).all():
                damaged.add(key)
            return array

        return dataclasses.replace(tensor, load=load)

    yield {key: watched(key, tensor) for key, tensor in tensors.items()}
    if damaged:
        problems = describe("weights with NaN or infinity", sorted(damaged))
        raise WeightsError(origin, problems, "The file is damaged, or the training that wrote it diverged.")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object, such as `config.json`.

    Raises:
        InterLCMError: there is no such file, or it isn't a JSON object.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InterLCMError(f"{path}: no such file") from None
    except (ValueError, RecursionError) as error:
        raise InterLCMError(f"{path}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise InterLCMError(f"{path}: a JSON {type(value).__name__} instead of an object")
    return value


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


def _nothing(stem: str, variant: str | None) -> str:
    return f"no {stem} weights" + (f" of variant {variant}" if variant else "")


def _spellings(stem: str, variant: str | None) -> Iterator[str]:
    """The names that diffusers and transformers, today's and earlier ones, give a folder's weights, best first."""
    pickled = "pytorch_model" if stem == TRANSFORMERS else stem
    for root, kind in ((stem, "safetensors"), (pickled, "bin")):
        if variant is None:
            yield from (f"{root}.{kind}", f"{root}.{kind}.index.json")
        else:
            yield f"{root}.{variant}.{kind}"
            yield f"{root}.{kind}.index.{variant}.json"
            yield f"{root}.{kind}.{variant}.index.json"
            yield f"{root}.{variant}.{kind}.index.json"


def _shards(index: str, names: Collection[str]) -> list[str]:
    """A folder's files that may be an index's shards, for when the index itself can't be read yet."""
    match = re.fullmatch(r"(?P<root>\w+)\.(?P<rest>.+)\.json", index)
    if not match:
        return []
    parts = match["rest"].split(".")  # like safetensors.index.fp16
    kind = "safetensors" if "safetensors" in parts else "bin"
    variant = "".join(f".{re.escape(p)}" for p in parts if p not in ("index", kind))
    root, number = re.escape(match["root"]), r"-\d+-of-\d+"
    return [n for n in names if re.fullmatch(rf"{root}(?:{variant}{number}|{number}{variant})\.{kind}", n)]


def _read_file(path: Path) -> dict[str, LazyTensor]:
    if not path.is_file():
        raise WeightsError(path, ["no such file or folder"])
    if path.suffix == ".safetensors":
        return open_safetensors(path)
    if path.suffix in _PICKLED:
        return _lazy(unwrap(_load_pickle(path), path), path)
    raise WeightsError(path, [f"weights come as .safetensors, {', '.join(_PICKLED)}, or a folder of these"])


def _load_pickle(path: Path) -> Any:
    """Loads a pickle of plain tensors, refusing one that names anything else: that could run any code."""
    again = "Download or copy it again."
    with open(path, "rb") as file:
        head = file.read(2)
    zipped = head == b"PK"
    if not zipped and not head.startswith(b"\x80"):
        raise WeightsError(path, ["not a PyTorch file"], again)
    torch = import_torch(path)
    if zipped and _is_torchscript(path):
        advice = "Save its weights with torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE), if you trust it."
        raise WeightsError(path, ["a TorchScript archive, which is a program, so it was not loaded"], advice)
    try:
        # Files from before PyTorch 1.6 aren't zips and can't be mapped.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        if "Unsupported operand" in str(error):
            raise WeightsError(path, ["not a whole PyTorch file"], again) from error
        names = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"its pickle would run code{f' ({names[1]})' if names else ''}, so it was not loaded"
        raise WeightsError(path, [reason], "Ask for the weights as safetensors, or as a plain state dict.") from error
    except Exception as error:  # a damaged file makes PyTorch raise nearly anything
        raise WeightsError(path, [f"not a whole PyTorch file ({error})"], again) from error


def _numpy_globals() -> list[Any]:
    """What pickles of plain arrays name, by NumPy 1 and by NumPy 2. None of it runs anything else."""
    reconstruct = np.zeros(0).__reduce__()[0]
    names = [f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")]
    types = [type(np.dtype(kind)) for kind in (np.float16, np.float32, np.float64, np.int32, np.int64)]
    return [np.ndarray, np.dtype, *types, *((reconstruct, name) for name in names)]


def _is_torchscript(path: Path) -> bool:
    """Whether this is a TorchScript archive, as OpenAI publishes CLIP, and not a saved state dict."""
    return zipfile.is_zipfile(path) and any(
        name.endswith("/constants.pkl") for name in zipfile.ZipFile(path).namelist()
    )


def _lazy(state: Mapping[str, Any], path: Path) -> dict[str, LazyTensor]:
    torch = import_torch(path)
    tensors, odd = {}, []
    for key, value in state.items():
        plain = isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_quantized
        # One byte a float: NumPy has no such type, and no network here comes in it.
        if plain and not (value.is_floating_point() and value.element_size() == 1):
            tensors[key] = _tensor(value.detach(), path, torch)
        else:
            odd.append(f"{key} ({value.dtype if plain else type(value).__name__})")
    if odd:
        raise WeightsError(path, describe("entries that aren't plain tensors", odd), "Is it a whole training state?")
    return tensors


def _tensor(tensor: Any, path: Path, torch: Any) -> LazyTensor:
    # NumPy has no bfloat16 of its own: its bits pass as integers.
    brain = tensor.dtype == torch.bfloat16
    array = tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if brain else tensor.numpy()
    return LazyTensor(array.shape, array.dtype, path, lambda index: np.array(array[index]))


def _read_shards(index: Path) -> dict[str, LazyTensor]:
    places = _weight_map(index)
    shards, tensors, twice, astray, problems = set(places.values()), {}, set(), [], []
    lost = sorted(name for name in shards if not (index.parent / name).is_file())
    for name in sorted(shards.difference(lost)):
        try:
            shard = _read_file(index.parent / name)
        except WeightsError as error:
            problems += [f"{name}: {problem}" for problem in error.problems]
            lost.append(name)
            continue
        twice |= shard.keys() & tensors.keys()
        astray += [f"{key} (in {name})" for key in shard if places.get(key) != name]
        tensors |= shard
    absent = sorted(key for key, name in places.items() if name not in lost and key not in tensors)
    problems += describe("missing shards", [n for n in lost if not (index.parent / n).is_file()])
    problems += describe("keys in two shards", sorted(twice))
    problems += describe("keys not where the index has them", sorted(astray))
    problems += describe("keys of the index in no shard", absent)
    if problems:
        raise WeightsError(index, problems, "Download or copy the folder again.")
    return tensors


def _weight_map(index: Path) -> dict[str, str]:
    places = read_json(index).get("weight_map") if index.is_file() else None
    if not isinstance(places, dict) or not places:
        raise WeightsError(index, ["no index of shards: it has no weight_map"])
    if odd := [str(name) for name in places.values() if not isinstance(name, str) or Path(name).name != name]:
        raise WeightsError(index, describe("shards that aren't plain file names", sorted(set(odd))))
    return places
