"""Networks that a model folder may hold beside InterLCM's five: LPIPS to train, RetinaFace and ParseNet for photos."""

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from flax import nnx

from interlcm_jax.convert import parsenet, retinaface
from interlcm_jax.convert.checkpoints import checked, read_weights
from interlcm_jax.convert.recognize import recognize
from interlcm_jax.convert.rules import Table, to_jax, to_torch
from interlcm_jax.convert.writers import write_torch
from interlcm_jax.errors import InterLCMError, WeightsError
from interlcm_jax.faces.parsenet import ParseNet, ParseNetConfig
from interlcm_jax.faces.retinaface import RESNET, RetinaFace, RetinaFaceConfig
from interlcm_jax.files.atomic import whole_file
from interlcm_jax.files.safetensors import LazyTensor, open_safetensors, write_safetensors
from interlcm_jax.model_folder import read_config, weights_file, write_config
from interlcm_jax.models.config import NetworkConfig
from interlcm_jax.models.weights import misfits, weight_specs

_Weights = dict[str, LazyTensor]

FACES = {"retinaface": "RetinaFace", "parsenet": "ParseNet"}  # as a model folder and as people call them


class _FaceNetwork(NamedTuple):
    """A network's class, sizes and table, and how its file is called where it is published."""

    network: type[nnx.Module]
    config: NetworkConfig
    table: Table
    file: str


def _face_network(name: str, keys: Iterable[str]) -> _FaceNetwork:
    """The published one of a name whose weights have these keys, in PyTorch or here."""
    if name == "parsenet":
        return _FaceNetwork(ParseNet, ParseNetConfig(), parsenet.TABLE, "parsing_parsenet.pth")
    config = RetinaFaceConfig.published(keys)
    file = "detection_Resnet50_Final.pth" if config.backbone == RESNET else "mobilenet0.25_Final.pth"
    return _FaceNetwork(RetinaFace, config, retinaface.table(config), file)


def face_network_in(path: Path) -> str:
    """Which of `FACES` a PyTorch file holds, by its keys.

    Raises:
        WeightsError: none of them, or the file can't be read.
    """
    found = recognize(read_weights(path))
    if name := next((name for name, called in FACES.items() if called == found), None):
        return name
    what = f"this looks like {found}" if found else "its keys are of no network that is known here"
    raise WeightsError(path, [f"{what}; wanted is {' or '.join(FACES.values())}"])


def read_optional(
    *, vgg: Path | None, lpips_heads: Path | None, retinaface: Path | None, parsenet: Path | None
) -> dict[str, tuple[str | Path, _Weights]]:
    """Origin and tensors, still unread, of the networks whose PyTorch files are given.

    Raises:
        InterLCMError: just one of LPIPS' two files is given.
        WeightsError: a file isn't its network's; every offending key is named.
    """
    found: dict[str, tuple[str | Path, _Weights]] = {}
    if (vgg is None) != (lpips_heads is None):
        raise InterLCMError("LPIPS needs both VGG16 and its heads: --vgg and --lpips-heads")
    if vgg is not None:
        # Imported here, since it brings h5py and flaxmodels along and a restoration needs neither.
        from interlcm_jax.convert.lpips import from_pytorch

        found["lpips"] = (f"{vgg} and {lpips_heads}", from_pytorch(vgg, lpips_heads))
    for name, path in (("retinaface", retinaface), ("parsenet", parsenet)):
        if path is not None:
            weights = read_weights(path)
            network, config, table, _ = _face_network(name, weights)
            found[name] = (path, to_jax(weights, weight_specs(network, config), table, path))
    return found


def add_faces(
    folder: Path,
    *,
    retinaface: Path | None = None,
    parsenet: Path | None = None,
    allow_nan: bool = False,
    origins: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Puts RetinaFace and ParseNet into a model folder that is there already; each file appears whole or not at all.

    Args:
        folder: the model folder.
        retinaface: facexlib's `detection_Resnet50_Final.pth`, or `mobilenet0.25_Final.pth`, which its keys tell apart;
            None leaves what the folder has.
        parsenet: facexlib's `parsing_parsenet.pth`; None leaves what the folder has.
        allow_nan: write weights with NaN or infinity in them all the same.
        origins: origin and license of each network by name, where they are known; None is what the files are called.

    Raises:
        InterLCMError: `folder` isn't a model folder.
        WeightsError: a file isn't its network's, or isn't finite; every offending key is named.
    """
    config = read_config(folder)
    found = read_optional(vgg=None, lpips_heads=None, retinaface=retinaface, parsenet=parsenet)
    for name, (origin, tensors) in found.items():
        with (
            whole_file(weights_file(folder, name)) as temporary,
            contextlib.nullcontext(tensors) if allow_nan else checked(tensors, origin) as lazy,
        ):
            write_safetensors(temporary, lazy)
    stated = origins or file_origins(retinaface, parsenet)
    write_config(folder, dataclasses.replace(config, weights={**config.weights, **stated}))


def file_origins(retinaface: Path | None, parsenet: Path | None) -> dict[str, dict[str, str]]:
    """What `ModelConfig.weights` says of the face networks whose files are given."""
    given = {"retinaface": retinaface, "parsenet": parsenet}
    # A local path says nothing to others, and something about its owner: just its last part is kept.
    return {name: {"origin": p.name, "license": "see its origin"} for name, p in given.items() if p is not None}


def export_optional(folder: Path, out: Path) -> list[str]:
    """Writes those that a model folder holds as PyTorch has them; returns the files' names.

    Raises:
        WeightsError: a file isn't its network's; every offending key is named.
        InterLCMError: PyTorch isn't installed.
    """
    names = []
    if weights_file(folder, "lpips").is_file():
        from interlcm_jax.convert.lpips import load, to_pytorch

        names += ["vgg16.pth", "lpips_vgg.pth"]
        for name, weights in zip(names, to_pytorch(load(weights_file(folder, "lpips"))), strict=True):
            write_torch(out / name, weights, wrappers=())
    for name in FACES:
        if (path := weights_file(folder, name)).is_file():
            weights = open_safetensors(path)
            network, config, table, file = _face_network(name, weights)
            shapes = weight_specs(network, config)
            if problems := misfits(weights, {key: spec.shape for key, spec in shapes.items()}):
                raise WeightsError(path, problems)
            write_torch(out / file, to_torch(weights, shapes, table), wrappers=())
            names.append(file)
    return names
