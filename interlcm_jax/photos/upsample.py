"""Photos enlarged by a network: tile by tile through one compiled program, whatever the photo's size."""

import functools
import itertools
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from interlcm_jax.arguments import check_dtype
from interlcm_jax.convert.upsampler import NETWORKS, read_upsampler
from interlcm_jax.errors import InterLCMError, number_problems
from interlcm_jax.files.user_folders import upsamplers_folder
from interlcm_jax.models.upsampler import RRDBNet, SRVGGNetCompact
from interlcm_jax.models.weights import ShardingRule, abstract, fill
from interlcm_jax.runtime.batching import in_batches, replicated_mesh
from interlcm_jax.runtime.compiler_options import jit
from interlcm_jax.runtime.memory import memory_explained

# In pixels of the network's body, of which RealESRGAN_x2plus has one for each two of the photo: the side of a tile,
# what neighbors have in common on each side, and over how much of that, to both sides of the border, they are blended.
# RRDBNet looks so far that tiles always differ a little from the whole: docs/restoring.md has the measurement.
TILE, OVERLAP, BLEND = 320, 32, 8


class PhotoUpsampler:
    """Enlarges photos by a network, a `faces.paste.Upsampler`. Any number of threads may call it; they take turns.

    The photo is cut into tiles of one size that overlap, so that each pixel is seen with what is around it, and blend
    into each other; beyond the photo's edge it is mirrored. All tiles go through one compiled program, spread over the
    devices with the weights.

    Args:
        network: the network, with its weights.
        tile: side of a tile, in pixels of the network's body.
        overlap: of them, context on each side.
        blend: of the context, how much on each side is blended with the neighbor's.
        batch_size: tiles at a time on each device.

    Raises:
        InterLCMError: these don't go together.
    """

    def __init__(
        self,
        network: RRDBNet | SRVGGNetCompact,
        *,
        tile: int = TILE,
        overlap: int = OVERLAP,
        blend: int = BLEND,
        batch_size: int = 1,
    ):
        problems = number_problems("overlap", overlap, 0, (tile - 1) // 2) or number_problems(
            "blend", blend, 0, overlap
        )
        if not problems and 2 * blend > tile - 2 * overlap:
            problems = [f"blend is {blend}, but a tile of {tile} with an overlap of {overlap} hasn't room for it twice"]
        if problems:
            raise InterLCMError(problems[0])
        fold = network.config.fold
        self.tile, self.overlap, self.blend = tile * fold, overlap * fold, blend * fold
        self.scale, self.batch_size = network.config.scale, batch_size
        self.graph, self.weights = nnx.split(network)
        # The device is busy with one photo; a second one at the same time would only take its memory.
        self.turn = threading.Lock()

    def __call__(self, photo: UInt8[np.ndarray, "H W 3"], factor: float) -> UInt8[np.ndarray, "h w 3"]:
        """The photo enlarged by exactly `factor`, h = round(factor · H): by the network's, then resized.

        Args:
            photo: RGB.
            factor: any from 1; where it isn't the network's, averaging (below) or Lanczos (above) does the rest.

        Raises:
            InterLCMError: the network gave NaN or infinity, or the device has too little memory.
        """
        with self.turn, memory_explained("to enlarge a photo", "take a smaller upsampler, or bfloat16"):
            enlarged = self._enlarged(photo)
        height, width = (max(1, round(factor * side)) for side in photo.shape[:2])
        if enlarged.shape[:2] == (height, width):
            return enlarged
        how = cv2.INTER_AREA if height < enlarged.shape[0] else cv2.INTER_LANCZOS4
        return cv2.resize(enlarged, (width, height), interpolation=how)

    def _enlarged(self, photo: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """The photo enlarged by the network's own factor: tiles side by side into strips, strips below each other."""
        height, width = photo.shape[:2]
        scale, core, band = self.scale, self.tile - 2 * self.overlap, 2 * self.blend
        rows, columns = range(0, height, core), range(0, width, core)
        tiles = self._enlarged_tiles(photo, itertools.product(rows, columns))
        # With the blended margin that the first tiles have beyond the photo's edge.
        result = np.empty(((height + self.blend) * scale, width * scale, 3), np.uint8)
        strip = np.empty(((core + band) * scale, (width + self.blend) * scale, 3), np.uint8)
        for y in rows:
            for x in columns:
                _blend_in(strip.swapaxes(0, 1), next(tiles).swapaxes(0, 1), x * scale, band * scale if x else 0)
            _blend_in(result, strip[:, self.blend * scale :], y * scale, band * scale if y else 0)
        return result[self.blend * scale :]

    def _enlarged_tiles(
        self, photo: UInt8[np.ndarray, "H W 3"], places: Iterable[tuple[int, int]]
    ) -> Iterator[UInt8[np.ndarray, "t t 3"]]:
        """Enlarged tiles in order, without the context that isn't blended."""
        mesh = replicated_mesh(self.weights)
        size = self.batch_size * (1 if mesh is None else mesh.size)
        margin = (self.overlap - self.blend) * self.scale
        inner = slice(margin, self.tile * self.scale - margin)
        for tile in in_batches(self._tiles(photo, places), size, functools.partial(self._start, mesh)):
            if tile is None:
                raise InterLCMError("the upsampler gave NaN or infinity; try float32")
            yield tile[inner, inner]

    def _tiles(
        self, photo: UInt8[np.ndarray, "H W 3"], places: Iterable[tuple[int, int]]
    ) -> Iterator[UInt8[np.ndarray, "T T 3"]]:
        around = np.arange(-self.overlap, self.tile - self.overlap)
        for y, x in places:
            yield photo[np.ix_(_mirrored(y + around, photo.shape[0]), _mirrored(x + around, photo.shape[1]))]

    def _start(self, mesh: Mesh | None, tiles: UInt8[np.ndarray, "B T T 3"]) -> tuple[Array, Array]:
        if mesh is not None:
            tiles = jax.device_put(tiles, NamedSharding(mesh, PartitionSpec(mesh.axis_names)))
        return _program(self.graph, self.weights, tiles, mesh)


def load_upsampler(
    source: str | Path, dtype: DTypeLike = "float32", *, sharding: ShardingRule | None = None
) -> PhotoUpsampler:
    """An upsampler by its name, its folder or its file.

    Args:
        source: a name in `user_folders.upsamplers_folder`, like "x4plus"; a folder that `interlcm add` or `interlcm
            download` made; or a published .pth, which needs PyTorch.
        dtype: of the weights and the computation, float32 or bfloat16.
        sharding: where the weights go; None is the default device.

    Raises:
        InterLCMError: there is no such upsampler or dtype.
        WeightsError: the file isn't an upsampler's, or isn't whole or finite.
    """
    dtype = check_dtype(dtype)
    found = read_upsampler(_found(source))
    network = abstract(lambda rngs: NETWORKS[found.kind][0](found.config, rngs=rngs, dtype=dtype, param_dtype=dtype))
    fill(network, found.weights, found.path, sharding)
    return PhotoUpsampler(network)


def _found(source: str | Path) -> Path:
    """The file or folder of an upsampler that is given by name or path."""
    if Path(source).exists():
        return Path(source)
    try:
        folder = upsamplers_folder()
    except RuntimeError:
        folder = None
    if folder and Path(source).name == str(source) and (folder / source).is_dir():
        return folder / source
    raise InterLCMError(
        f"{source}: no such upsampler; interlcm download --upsampler x2plus (or x4plus, general-x4v3) gets one, "
        "interlcm add --upsampler FILE.pth takes one that you have"
    )


def _blend_in(whole: UInt8[np.ndarray, "H W 3"], part: UInt8[np.ndarray, "h _ 3"], start: int, band: int) -> None:
    """Lays rows into the whole from row `start` on; the first `band` of them fade in over what is there."""
    part = part[: len(whole) - start, : whole.shape[1]]
    place = whole[start : start + len(part)]
    rising = ((np.arange(band, dtype=np.float32) + 0.5) / max(band, 1)).reshape(-1, 1, 1)[: len(part)]
    fading = place[:band] + (part[:band].astype(np.float32) - place[:band]) * rising
    place[:band] = np.rint(fading)
    place[band:] = part[band:]


def _mirrored(index: np.ndarray, length: int) -> np.ndarray:
    """Indices beyond the first and the last element turned back, as often as it takes."""
    period = max(1, 2 * length - 2)
    index = index % period
    return np.minimum(index, period - index) if length > 1 else np.zeros_like(index)


def _run(
    graph: nnx.GraphDef, weights: nnx.State, tiles: UInt8[Array, "B T T 3"], mesh: Mesh | None
) -> tuple[UInt8[Array, "B t t 3"], Array]:
    """Tiles enlarged, and which are finite; on a mesh, each device runs its share of them."""
    if mesh is None:
        return _enlarge(graph, weights, tiles)
    split = PartitionSpec(mesh.axis_names)
    run = functools.partial(_enlarge, graph)
    shared = jax.shard_map(run, mesh=mesh, in_specs=(PartitionSpec(), split), out_specs=split, check_vma=False)
    return shared(weights, tiles)


_program = jit(_run, static_argnames=("graph", "mesh"))


def _enlarge(
    graph: nnx.GraphDef, weights: nnx.State, tiles: UInt8[Array, "B T T 3"]
) -> tuple[UInt8[Array, "B t t 3"], Array]:
    enlarged: Float[Array, "B t t 3"] = nnx.merge(graph, weights)(tiles.astype(jnp.float32) / 255)
    levels = jnp.round(jnp.clip(enlarged.astype(jnp.float32), 0, 1) * 255)
    return levels.astype(jnp.uint8), jnp.isfinite(enlarged).all(axis=(1, 2, 3))
