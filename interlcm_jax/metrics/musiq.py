"""MUSIQ as papers on face restoration report it: KonIQ's mean opinion scores, about 0 to 100, higher is better.

No reference is needed. The weights aren't ours to ship: pyiqa publishes them as `musiq_koniq_ckpt-e95806b9.pth`
(huggingface.co/chaofengc/IQA-PyTorch-Weights), Google as `gs://gresearch/musiq/koniq_ckpt.npz`; both hold the same
numbers. MUSIQ's other weights (SPAQ, PaQ-2-PiQ) have the same keys and shapes and give other scores: mind the file.
"""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from interlcm_jax.convert.musiq import read_musiq
from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.atomic import whole_file
from interlcm_jax.files.safetensors import write_safetensors
from interlcm_jax.metrics.image import Images
from interlcm_jax.metrics.musiq_network import MUSIQ, MUSIQConfig
from interlcm_jax.metrics.musiq_patches import Patches, multiscale_patches
from interlcm_jax.models.weights import abstract, fill, lazy_weights, skeleton
from interlcm_jax.runtime.compiler_options import jit

PYIQA_FILE, OFFICIAL_FILE = "musiq_koniq_ckpt-e95806b9.pth", "koniq_ckpt.npz"


class MUSIQScorer:
    """Scores images; each by itself, so batches change nothing.

    Args:
        network: the network, with its weights.
        max_patches: pad every image's patches to this many (see `num_patches`), so that images of several sizes share
            one compiled network; None compiles one for each size, and wastes nothing.
    """

    def __init__(self, network: MUSIQ, max_patches: int | None = None):
        self.config, self.max_patches = network.config, max_patches
        self.graph, self.weights = nnx.split(network)

    def __call__(self, images: Images) -> Float[np.ndarray, "B"]:
        """Mean opinion scores of RGB images of one size, uint8 or floats in [-1, 1].

        Raises:
            InterLCMError: the images have another shape or kind of numbers, or more patches than `max_patches`.
        """
        fitting = images.dtype == jnp.uint8 or jnp.issubdtype(images.dtype, jnp.floating)
        if images.ndim != 4 or images.shape[-1] != 3 or not fitting:
            kind = f"{images.dtype} {images.shape}"
            raise InterLCMError(f"MUSIQ takes images (B, H, W, 3), uint8 or floats in [-1, 1], not {kind}")
        return np.asarray(_score(self.graph, self.weights, multiscale_patches(images, self.config, self.max_patches)))


def load(
    path: str | Path,
    *,
    config: MUSIQConfig | None = None,
    dtype: DTypeLike = "float32",
    max_patches: int | None = None,
) -> MUSIQScorer:
    """A scorer with published weights, or with those that `save` wrote.

    Args:
        path: pyiqa's `.pth` (to read it needs PyTorch), Google's `.npz`, or our `.safetensors`.
        config: the network's sizes; None is the published ones'.
        dtype: dtype of the weights and the computation.
        max_patches: as `MUSIQScorer`'s.

    Raises:
        InterLCMError: there is no such file, or it is a `.pth` and PyTorch isn't installed.
        WeightsError: the file isn't whole or isn't MUSIQ's; every offending key is named.
    """
    path = Path(path)
    if not path.is_file():
        raise InterLCMError(
            f"{path}: no such file. MUSIQ takes pyiqa's {PYIQA_FILE} "
            f"(huggingface.co/chaofengc/IQA-PyTorch-Weights) or Google's gs://gresearch/musiq/{OFFICIAL_FILE}"
        )
    dtype = jnp.dtype(dtype)
    network = abstract(lambda rngs: MUSIQ(config or MUSIQConfig(), rngs=rngs, dtype=dtype, param_dtype=dtype))
    fill(network, read_musiq(path, skeleton(network)), path)
    return MUSIQScorer(network, max_patches)


def save(path: Path, scorer: MUSIQScorer) -> None:
    """Writes a scorer's weights as a safetensors file, which `load` reads without PyTorch."""
    with whole_file(path) as temporary:
        write_safetensors(temporary, lazy_weights(nnx.merge(scorer.graph, scorer.weights)))


@jit(static_argnums=0)
def _score(graph: nnx.GraphDef[MUSIQ], weights: nnx.State, patches: Patches) -> Float[Array, "B"]:
    return nnx.merge(graph, weights)(*patches)
