"""Image measures: what is computed of each image on the devices; metrics make scores of it on the host."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8

from interlcm_jax.faces.mtcnn import load_networks
from interlcm_jax.imaging.pixels import to_float
from interlcm_jax.metrics import identity, inception
from interlcm_jax.metrics.image import match_colors, mean_squared_error, ssim
from interlcm_jax.metrics.landmarks import lmd
from interlcm_jax.metrics.musiq import MUSIQScorer
from interlcm_jax.metrics.musiq_patches import multiscale_patches
from interlcm_jax.metrics.niqe import Pristine, distances
from interlcm_jax.metrics.niqe_features import BLOCK, block_moments, features
from interlcm_jax.metrics.onet import onet_distance
from interlcm_jax.metrics.sharpness import laplacian_variance
from interlcm_jax.models.lpips import lpips
from interlcm_jax.runtime.compiler_options import jit

Images = UInt8[Array, "B H W 3"]


class LoadedMeasure(NamedTuple):
    """An image measure with its weights loaded.

    Attributes:
        params: the weights, which each device gets a copy of.
        on_device: from `params` and the images, uint8, to arrays of B rows, each of which its own images alone decide;
            it is compiled, and run on a share of the batch by each device.
        on_host: from these arrays to one, of B rows.
    """

    params: Any
    on_device: Callable[..., Any]
    on_host: Callable[[Any], np.ndarray] = np.asarray


@dataclasses.dataclass(frozen=True)
class ImageMeasure:
    """Numbers that each image, or image and reference, gives.

    Attributes:
        of: what it is computed from: "restored", "hq" or both.
        load: from what `weights` names, or None, to the measure with its weights.
        weights: one of `weights.WEIGHTS`, or None where it needs none.
        least: the shortest side that an image may have, pixels.
    """

    of: tuple[str, ...]
    load: Callable[[Any], LoadedMeasure]
    weights: str | None = None
    least: int = 1


def without_weights(function: Callable[..., Any]) -> Callable[[None], LoadedMeasure]:
    """Makes an image measure of a function of images that needs no weights: for `ImageMeasure.load`."""
    return lambda _: LoadedMeasure((), lambda _, *images: function(*images))


def _yiq_luma(images: Images) -> Images:
    """Brightness as pyiqa has it, in whole levels and three equal channels."""
    luma = sum(weight * images[..., i].astype(jnp.float32) for i, weight in enumerate((0.299, 0.587, 0.114)))
    return jnp.repeat(jnp.round(luma)[..., None], 3, axis=-1).astype(jnp.uint8)


def _matched(metric: Callable[..., Array]) -> Callable[[Images, Images], Array]:
    return lambda restored, hq: metric(match_colors(to_float(restored), to_float(hq)), to_float(hq))


def _lpips(params: Any, restored: Images, hq: Images) -> Float[Array, "B"]:
    return lpips(params, to_float(restored), to_float(hq))


def _lpips_bgr(params: Any, restored: Images, hq: Images) -> Float[Array, "B"]:
    return _lpips(params, restored[..., ::-1], hq[..., ::-1])


def _onet(_: None) -> LoadedMeasure:
    def distance(onet: Any, restored: Images, hq: Images) -> Float[Array, "B"]:
        return onet_distance(onet, to_float(restored), to_float(hq))

    return LoadedMeasure(load_networks()[2], distance)


def _niqe(pristine: Pristine) -> LoadedMeasure:
    return LoadedMeasure((), lambda _, images: block_moments(images), lambda rows: distances(features(rows), pristine))


def _musiq(scorer: MUSIQScorer) -> LoadedMeasure:
    def score(weights: Any, images: Images) -> Float[Array, "B"]:
        return nnx.merge(scorer.graph, weights)(*multiscale_patches(images, scorer.config))

    return LoadedMeasure(scorer.weights, score)


PAIR = ("restored", "hq")
_WINDOW, _VGG, _ONET = 11, 16, 48  # the smallest images of SSIM, LPIPS and O-Net, pixels

ERROR = ImageMeasure(PAIR, without_weights(mean_squared_error))
ERROR_Y = ImageMeasure(PAIR, without_weights(lambda restored, hq: mean_squared_error(restored, hq, "y")))
ERROR_MATCHED = ImageMeasure(PAIR, without_weights(_matched(mean_squared_error)))
SSIM = ImageMeasure(PAIR, without_weights(ssim), least=_WINDOW)
SSIM_Y = ImageMeasure(PAIR, without_weights(lambda restored, hq: ssim(restored, hq, "y")), least=_WINDOW)
SSIM_MATCHED = ImageMeasure(PAIR, without_weights(_matched(ssim)), least=_WINDOW)
SSIM_PYIQA = ImageMeasure(
    PAIR, without_weights(lambda restored, hq: ssim(_yiq_luma(restored), _yiq_luma(hq), clip=True)), least=_WINDOW
)
LPIPS = ImageMeasure(PAIR, lambda params: LoadedMeasure(params, _lpips), weights="lpips", least=_VGG)
LPIPS_BGR = ImageMeasure(PAIR, lambda params: LoadedMeasure(params, _lpips_bgr), weights="lpips", least=_VGG)

SHARPNESS = ImageMeasure(("restored",), without_weights(laplacian_variance), least=3)
ONET = ImageMeasure(PAIR, _onet, least=_ONET)

INCEPTION = ImageMeasure(("restored",), lambda network: LoadedMeasure(network, inception.features), weights="inception")
INCEPTION_HQ = ImageMeasure(("hq",), lambda network: LoadedMeasure(network, inception.features), weights="inception")
DEG = ImageMeasure(PAIR, lambda network: LoadedMeasure(network, identity.deg), weights="deg")
SIMILARITY = ImageMeasure(PAIR, lambda network: LoadedMeasure(network, identity.similarity), weights="deg")
IDA = ImageMeasure(PAIR, lambda network: LoadedMeasure(network, identity.ida), weights="ida")
LMD = ImageMeasure(PAIR, lambda network: LoadedMeasure(network, lmd), weights="fan")
NIQE = ImageMeasure(("restored",), _niqe, weights="niqe", least=2 * BLOCK)
MUSIQ = ImageMeasure(("restored",), _musiq, weights="musiq")


def compiled(measure: LoadedMeasure, mesh: jax.sharding.Mesh | None, images: int) -> Callable[..., Any]:
    """The part on the device as one program; on a mesh, each device runs it on its share of the batch.

    Args:
        measure: the measure.
        mesh: of one axis, or None for one device.
        images: how many batches of images it takes.
    """
    if mesh is None:
        return jit(measure.on_device)
    whole, split = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec(mesh.axis_names)
    specs = (whole, *[split] * images)
    return jit(jax.shard_map(measure.on_device, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False))
