"""Real-ESRGAN's upsamplers: from a published `.pth` to a folder of ours, and back.

The files carry no configuration: which network it is and all of its sizes follow from their keys and shapes.
"""

import contextlib
import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path

from flax import nnx

from interlcm_jax.convert.checkpoints import checked, read_json, read_weights
from interlcm_jax.convert.recognize import recognize
from interlcm_jax.convert.rules import CONV2D, Rule, Table, to_jax, to_torch
from interlcm_jax.convert.writers import write_torch
from interlcm_jax.errors import InterLCMError, WeightsError, mapping_of
from interlcm_jax.files.atomic import whole_file, whole_folder
from interlcm_jax.files.safetensors import LazyTensor, open_safetensors, write_safetensors
from interlcm_jax.models.config import NetworkConfig
from interlcm_jax.models.upsampler import FEATURES_SCALE, RRDBNet, RRDBNetConfig, SRVGGConfig, SRVGGNetCompact
from interlcm_jax.models.weights import misfits, weight_specs

CONFIG, WEIGHTS = "config.json", "upsampler.safetensors"
FORMAT = 1
LICENSE = "BSD-3-Clause"  # of the released weights
_CONV = (Rule(r"(.*)\.kernel", r"\1.weight", CONV2D), Rule(r"(.*)\.bias", r"\1.bias"))
TABLES = {
    "RRDBNet": Table(_CONV),
    "SRVGGNetCompact": Table((*_CONV, Rule(r"(.*)\.slope", r"\1.weight"))),
}
NETWORKS: dict[str, tuple[type[nnx.Module], type[NetworkConfig]]] = {
    "RRDBNet": (RRDBNet, RRDBNetConfig),
    "SRVGGNetCompact": (SRVGGNetCompact, SRVGGConfig),
}


@dataclasses.dataclass(frozen=True)
class Upsampler:
    """An upsampler's file or folder, its weights still unread.

    Attributes:
        kind: "RRDBNet" or "SRVGGNetCompact".
        config: its sizes.
        weights: tensors by our paths.
        path: where they come from.
    """

    kind: str
    config: NetworkConfig
    weights: Mapping[str, LazyTensor]
    path: Path


def read_upsampler(path: Path) -> Upsampler:
    """Lists the weights of a published file (.pth or .safetensors by PyTorch's keys), or of a folder of ours.

    Raises:
        InterLCMError: a folder isn't an upsampler's; or the file is a pickle and PyTorch isn't installed.
        WeightsError: the file is another network's, or isn't whole; every offending key is named.
    """
    if path.is_dir():
        return _read_folder(path)
    tensors = read_weights(path)
    kind, config = _sizes(tensors, path)
    weights = to_jax(tensors, weight_specs(NETWORKS[kind][0], config), TABLES[kind], path)
    return Upsampler(kind, config, weights, path)


def write_upsampler(upsampler: Upsampler, folder: Path, origin: str, license: str, *, allow_nan: bool = False) -> None:
    """Writes an upsampler's folder, which appears whole or not at all.

    Args:
        upsampler: what `read_upsampler` gave.
        folder: where it is made.
        origin: where the weights are from.
        license: theirs.
        allow_nan: write weights with NaN or infinity in them all the same.

    Raises:
        InterLCMError: the folder exists, or can't be written.
        WeightsError: the weights aren't finite; all are named.
    """
    weights = dict(upsampler.weights)
    finite = contextlib.nullcontext(weights) if allow_nan else checked(weights, upsampler.path)
    with whole_folder(folder) as temporary, finite as lazy:
        description = {"format": FORMAT, "network": upsampler.kind, "sizes": upsampler.config.to_json()}
        text = json.dumps({**description, "origin": origin, "license": license}, indent=2)
        (temporary / CONFIG).write_text(f"{text}\n")
        write_safetensors(temporary / WEIGHTS, lazy)


def export_upsampler(folder: Path, out: Path) -> None:
    """The inverse: writes the `.pth` that BasicSR's class of the same name loads with strict=True.

    Raises:
        InterLCMError: the folder isn't an upsampler's, or PyTorch isn't installed.
        WeightsError: the weights don't fit the sizes; every offending key is named.
    """
    upsampler = read_upsampler(folder)
    shapes = weight_specs(NETWORKS[upsampler.kind][0], upsampler.config)
    with whole_file(out) as temporary:
        write_torch(temporary, to_torch(upsampler.weights, shapes, TABLES[upsampler.kind]), ("params_ema",))


def published_name(path: Path) -> str:
    """What an upsampler is called here, by its file's name: x4plus for `RealESRGAN_x4plus.pth`."""
    return re.sub("^(RealESRGAN_|realesr-)", "", path.stem)


def _read_folder(folder: Path) -> Upsampler:
    path = folder / CONFIG
    if not path.is_file() or not (folder / WEIGHTS).is_file():
        raise InterLCMError(f"{folder}: no upsampler's folder (it has {CONFIG} and {WEIGHTS})")
    config = read_json(path)
    kind = config.get("network")
    if config.get("format") != FORMAT or kind not in list(NETWORKS):
        raise InterLCMError(f"{path}: not an upsampler's, or of another version (its network is {kind!r})")
    network, sizes = NETWORKS[kind]
    try:
        sizes = sizes.from_json(mapping_of(config, "sizes"))
    except InterLCMError as error:
        raise InterLCMError(f"{path}: {error}") from error
    weights = open_safetensors(folder / WEIGHTS)
    shapes = {name: spec.shape for name, spec in weight_specs(network, sizes).items()}
    if problems := misfits(weights, shapes):
        raise WeightsError(folder / WEIGHTS, problems, f"The file doesn't fit the sizes in {CONFIG}.")
    return Upsampler(kind, sizes, weights, folder / WEIGHTS)


def _sizes(tensors: Mapping[str, LazyTensor], path: Path) -> tuple[str, NetworkConfig]:
    """The network and its sizes, by what its file holds."""
    try:
        if "conv_first.weight" in tensors:
            return "RRDBNet", _rrdb_sizes(tensors)
        if "body.0.weight" in tensors:
            return "SRVGGNetCompact", _srvgg_sizes(tensors)
    except InterLCMError as error:
        raise WeightsError(path, [str(error)], "Is it the right file?") from error
    found = recognize(tensors) or "no network that is known here"
    raise WeightsError(path, [f"this looks like {found}; wanted is Real-ESRGAN's RRDBNet or compact network"])


def _rrdb_sizes(tensors: Mapping[str, LazyTensor]) -> RRDBNetConfig:
    width, folded, *_ = _shape(tensors, "conv_first.weight")
    growth, *_ = _shape(tensors, "body.0.rdb1.conv1.weight")
    blocks = {match[1] for key in tensors if (match := re.match(r"body\.(\d+)\.rdb1\.", key))}
    scales = {3 * (FEATURES_SCALE // scale) ** 2: scale for scale in (1, 2, 4)}
    if folded not in scales:
        raise InterLCMError(f"conv_first.weight takes {folded} channels, but an RGB photo folded gives 3, 12 or 48")
    return RRDBNetConfig(scale=scales[folded], channels=width, growth_channels=growth, num_blocks=len(blocks))


def _srvgg_sizes(tensors: Mapping[str, LazyTensor]) -> SRVGGConfig:
    width, *_ = _shape(tensors, "body.0.weight")
    # The first convolution and each of the others but the last have a rectifier after them.
    last = max(int(match[1]) for key in tensors if (match := re.fullmatch(r"body\.(\d{1,6})\.weight", key)))
    channels, *_ = _shape(tensors, f"body.{last}.weight")
    scale = round((channels / 3) ** 0.5)
    if 3 * scale**2 != channels:
        raise InterLCMError(
            f"body.{last}.weight gives {channels} channels, but an RGB photo unfolds from 3, 12, 27, 48"
        )
    return SRVGGConfig(scale=scale, channels=width, num_layers=last // 2 - 1)


def _shape(tensors: Mapping[str, LazyTensor], key: str) -> tuple[int, ...]:
    """Of a convolution's kernel."""
    shape = tensors[key].shape if key in tensors else ()
    if len(shape) != 4:
        raise InterLCMError(f"{key} is {list(shape) if shape else 'missing'}, but must be a convolution's kernel")
    return shape
