"""Readers of the formats PyTorch weights come in: safetensors, pickles, shards with an index, and folders of these.

Nothing here knows a network: the result is a tensor by key, unread. Only pickles (.bin, .pth, .pt, .ckpt) need PyTorch.
"""

import collections
import contextlib
import dataclasses
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from interlcm_jax.convert.pickles import lazy_tensors, read_pickle
from interlcm_jax.errors import InterLCMError, WeightsError, describe
from interlcm_jax.files.paths import to_local
from interlcm_jax.files.safetensors import LazyTensor, open_safetensors

DIFFUSERS, TRANSFORMERS = "diffusion_pytorch_model", "model"  # stems of the files in the two libraries' folders
_SAFE, _PICKLED = (".safetensors", ".sft"), (".bin", ".pth", ".pt", ".ckpt")
# Which variant to take where none is asked for: full precision, then half, then weights without moving average.
_VARIANTS = (None, "fp16", "bf16", "non_ema")
# What a state dict may be stored under: InterLCM and BasicSR, then Lightning.
_WRAPPERS = ("params_ema", "params", "state_dict")


def read_weights(path: str | Path, stem: str = DIFFUSERS, variant: str | None = None) -> dict[str, LazyTensor]:
    """Lists the tensors of a file or folder by their PyTorch keys, without reading them.

    Args:
        path: a .safetensors (.sft), .bin, .pth, .pt or .ckpt file, an index of shards, or a folder of diffusers or
            transformers. Of a pickle that holds several state dicts `params_ema` is read before `params`, and of keys
            what `torch.compile` and data parallelism put before them (`_orig_mod.`, `module.`) is dropped.
        stem: what a folder's files are called: `DIFFUSERS` or `TRANSFORMERS`.
        variant: like "fp16", to take a folder's `{stem}.fp16.safetensors`; None prefers full precision, and takes
            weights without moving average (`non_ema`) only where there are no others.

    Raises:
        WeightsError: there are no such weights, or they aren't whole, or their pickle would run code.
        InterLCMError: the file is a pickle and PyTorch isn't installed.
    """
    path = to_local(path)
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir())
        name = weight_file(names, stem, variant)
        if name is None:
            elsewhere = _elsewhere("", [file.relative_to(path).as_posix() for file in path.glob("*/config.json")])
            problem = f"{_nothing(stem, variant)}{elsewhere}"
            raise WeightsError(path, [problem], f"The folder holds: {', '.join(names) or 'nothing'}")
        path = path / name
    return _bare_keys(_read_shards(path) if path.suffix == ".json" else _read_file(path), path)


def weight_file(names: Collection[str], stem: str, variant: str | None = None) -> str | None:
    """Which of a folder's files to read: full precision over half, then safetensors over pickle; None if none fits."""
    candidates = (name for v in ([variant] if variant else _VARIANTS) for name in _spellings(stem, v))
    return next((name for name in candidates if name in names), None)


def needed(
    stems: Mapping[str, str], files: Sequence[str] = (), variant: str | None = None
) -> Callable[[Collection[str]], list[str]]:
    """Which files of a repository hold the weights of some of its folders; for `hub.resolve`.

    Args:
        stems: the stem of the weights in each folder, like {"unet": DIFFUSERS}; "" is the repository itself.
        files: other files to fetch, like "unet/config.json".
        variant: as in `read_weights`; where one of the folders has it, the others may lack it.
    """

    def select(names: Collection[str]) -> list[str]:
        chosen, problems = list(files), describe("missing files", [f for f in files if f not in names])
        inside = {folder: _inside(folder, names) for folder in stems}
        found = {folder: weight_file(inside[folder], stem, variant) for folder, stem in stems.items()}
        if any(found.values()):
            # Many pipelines publish a variant of the UNet alone.
            found = {folder: name or weight_file(inside[folder], stems[folder]) for folder, name in found.items()}
        for folder, name in found.items():
            if name is None:
                problems.append(
                    f"{folder or 'top folder'}: {_nothing(stems[folder], variant)}{_elsewhere(folder, names)}"
                )
                continue
            prefix = f"{folder}/" if folder else ""
            chosen += [prefix + n for n in (name, *_shards(name, inside[folder]))]
        if problems:
            raise InterLCMError("; ".join(problems))
        return chosen

    return select


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


def _inside(folder: str, names: Collection[str]) -> list[str]:
    """The names below a folder, without it."""
    prefix = f"{folder}/" if folder else ""
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def _elsewhere(folder: str, names: Collection[str]) -> str:
    """Where the networks of a pipeline are, for who looks for one at its top."""
    inner = sorted(name.removesuffix("/config.json") for name in names if name.endswith("/config.json"))
    return f"; networks are in its subfolders {', '.join(inner)}" if inner and not folder else ""


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
    if path.suffix.lower() in _SAFE:
        return open_safetensors(path)
    if path.suffix.lower() in _PICKLED:
        return lazy_tensors(_state_dict(read_pickle(path), path), path)
    raise WeightsError(path, [f"weights come as {', '.join((*_SAFE, *_PICKLED))}, or a folder of these"])


def _state_dict(state: Any, origin: Path) -> Mapping[str, Any]:
    """The state dict inside a loaded pickle."""
    if isinstance(state, Mapping):
        state = next((state[wrapper] for wrapper in _WRAPPERS if wrapper in state), state)
    if not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
        raise WeightsError(origin, [f"a {type(state).__name__} instead of a state dict"])
    return state


def _bare_keys(tensors: dict[str, LazyTensor], origin: Path) -> dict[str, LazyTensor]:
    """The tensors by the keys that the network itself has, without those of what it was wrapped in."""
    keys = [key.replace("_orig_mod.", "") for key in tensors]
    if all(key.startswith("module.") for key in keys):
        keys = [key.removeprefix("module.") for key in keys]
    if twice := [key for key, count in collections.Counter(keys).items() if count > 1]:
        raise WeightsError(origin, describe("duplicate keys", sorted(twice)))
    return dict(zip(keys, tensors.values(), strict=True))


def _read_shards(index: Path) -> dict[str, LazyTensor]:
    places = _weight_map(index)
    shards, tensors, twice, astray, problems = set(places.values()), {}, set(), [], []
    missing = {name for name in shards if not (index.parent / name).is_file()}
    lost = set(missing)
    for name in sorted(shards - missing):
        try:
            shard = _read_file(index.parent / name)
        except WeightsError as error:
            problems += [f"{name}: {problem}" for problem in error.problems]
            lost.add(name)
            continue
        twice |= shard.keys() & tensors.keys()
        astray += [f"{key} (in {name})" for key in shard if places.get(key) != name]
        tensors |= shard
    absent = sorted(key for key, name in places.items() if name not in lost and key not in tensors)
    problems += describe("missing shards", sorted(missing))
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
