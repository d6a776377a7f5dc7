"""Every image of a folder measured: decoded in threads, in full batches on every device; bad files are named.

An image's numbers don't depend on the batch it is in or the devices there are: batches are padded, and what the
padding gives is thrown away; all sums over images are taken later, on the host.
"""

import dataclasses
import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from interlcm_jax.errors import InterLCMError
from interlcm_jax.evaluation.pairs import Pair
from interlcm_jax.evaluation.per_image import ImageMeasure, LoadedMeasure, compiled
from interlcm_jax.imaging.io import Photo, read_photo
from interlcm_jax.runtime.batching import IN_FLIGHT, pad, replicated_sharding
from interlcm_jax.runtime.memory import memory_explained
from interlcm_jax.runtime.overlap import ahead

# The batch size counts images of up to so many pixels: of larger ones fewer are taken at a time.
IMAGE = 1024 * 1024
# Larger images take more memory than most machines have: SSIM needs about 150 bytes a pixel, networks more.
MAX_PIXELS = 64_000_000
# Batches' worth of pixels that wait for others of their size; pixels that each worker reads ahead.
_MOST_WAITING, _MOST_AHEAD = 4, 16_000_000


@dataclasses.dataclass
class Measurements:
    """What was measured of a set of images.

    Attributes:
        rows: of each measure, each image's row by the image's name; none for images too small for it.
        names: of the images that were measured, in order.
        failures: what was wrong, by the name of an image that couldn't be measured.
        warnings: what is odd about images that were.
        digests: each reference's hash (of its pixels), by name.
    """

    rows: dict[ImageMeasure, dict[str, np.ndarray]]
    names: list[str] = dataclasses.field(default_factory=list)
    failures: dict[str, str] = dataclasses.field(default_factory=dict)
    warnings: list[str] = dataclasses.field(default_factory=list)
    digests: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class OpenedPair:
    """A pair's pixels by what they are, "restored" and perhaps "hq"; its reference's hash; what is odd about it."""

    images: dict[str, UInt8[np.ndarray, "H W 3"]]
    digest: str | None
    warnings: list[str]


def open_pair(pair: Pair) -> OpenedPair:
    """Reads a pair.

    Raises:
        InterLCMError: a file can't be read or has more than `MAX_PIXELS` pixels, or the two are of different sizes.
    """
    photos = {"restored": read_photo(pair.restored, MAX_PIXELS)}
    if pair.hq is not None:
        photos["hq"] = read_photo(pair.hq, MAX_PIXELS)
        sizes = [photo.pixels.shape[1::-1] for photo in photos.values()]
        if sizes[0] != sizes[1]:
            texts = [f"{width} x {height}" for width, height in sizes]
            raise InterLCMError(f"{pair.restored}: {texts[0]} pixels, but its reference has {texts[1]}")
    digest = pixels_digest(photos["hq"].pixels) if pair.hq is not None else None
    return OpenedPair({name: photo.pixels for name, photo in photos.items()}, digest, _odd(pair, photos))


def pixels_digest(pixels: UInt8[np.ndarray, "H W 3"]) -> str:
    """SHA-256 of an image's size and pixels, whatever file they are in."""
    return hashlib.sha256(str(pixels.shape).encode() + np.ascontiguousarray(pixels).data).hexdigest()


def set_digest(digests: Mapping[str, str], names: Sequence[str]) -> str:
    """One hash for the images of these names, and for the names."""
    lines = "".join(f"{name} {digests[name]}\n" for name in sorted(names))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def _odd(pair: Pair, photos: Mapping[str, Photo]) -> list[str]:
    found = []
    if len(photos) == 2 and photos["restored"].gray != photos["hq"].gray:
        kinds = ["gray" if photos[name].gray else "in color" for name in ("restored", "hq")]
        found.append(f"{pair.restored}: {kinds[0]}, but its reference is {kinds[1]}; scored as it is")
    for file, photo in zip((pair.restored, pair.hq), photos.values(), strict=False):
        if photo.alpha is not None:
            found.append(f"{file}: has transparency, which doesn't enter the scores")
    return found


def measure_pairs(
    pairs: Sequence[Pair],
    measures: Mapping[ImageMeasure, LoadedMeasure],
    *,
    batch_size: int,
    workers: int,
    progress: Callable[[], object] = lambda: None,
) -> Measurements:
    """Computes the image measures of every pair; one that can't be read costs that pair only.

    Args:
        pairs: with originals where a measure takes them.
        measures: what is computed.
        batch_size: images at a time on each device; fewer where they have more than `IMAGE` pixels, at least one.
        workers: threads that read files.
        progress: called after every pair.

    Raises:
        InterLCMError: the device has too little memory.
    """
    devices = _Devices(measures)
    measurements = Measurements({one: {} for one in measures})
    under_way: deque[tuple[list[str], dict[ImageMeasure, Any]]] = deque()
    batches = _Batches(batch_size, devices.count)

    def settle(most: int) -> None:
        while len(under_way) > most:
            names, results = under_way.popleft()
            for one, result in results.items():
                arrays = measures[one].on_host(_first(result, len(names)))
                measurements.rows[one].update(zip(names, arrays, strict=True))
            measurements.names += names
            for _ in names:
                progress()

    def failed(pair: Pair, error: Exception) -> None:
        known = isinstance(error, InterLCMError)
        measurements.failures[pair.name] = str(error) if known else f"{pair.restored}: {type(error).__name__}: {error}"
        progress()

    def opened() -> Iterator[tuple[str, OpenedPair]]:
        for pair, future in ahead(pool, open_pair, pairs, lambda: batches.ahead(workers)):
            if error := future.exception():
                failed(pair, error)
                continue
            yield pair.name, _noted(measurements, pair, future)

    pool = ThreadPoolExecutor(workers)
    try:
        with memory_explained(f"to score images with a batch size of {batch_size}", "lower the batch size"):
            for names, images in batches.of(opened()):
                shape = next(iter(images.values())).shape[1:]
                if batches.is_large(shape):
                    settle(0)
                under_way.append((names, devices.start(images, batches.size(shape))))
                settle(IN_FLIGHT - 1)
            settle(0)
    finally:
        pool.shutdown(cancel_futures=True)
    measurements.names.sort()
    return measurements


def _first(result: Any, count: int) -> Any:
    """The rows of images, without those of the padding."""
    return jax.tree.map(lambda array: np.asarray(array)[:count], result)


def _noted(measurements: Measurements, pair: Pair, future: "Future[OpenedPair]") -> OpenedPair:
    opened = future.result()
    measurements.warnings += opened.warnings
    if opened.digest is not None:
        measurements.digests[pair.name] = opened.digest
    return opened


Batch = tuple[list[str], dict[str, UInt8[np.ndarray, "B H W 3"]]]


class _Batches:
    """Batches of images of one size, as many as there is memory for; where there are many sizes some aren't full.

    Args:
        batch_size: images of up to `IMAGE` pixels at a time on each device.
        devices: how many there are.
    """

    def __init__(self, batch_size: int, devices: int):
        self.batch_size, self.devices = batch_size, devices
        self.largest = 0  # pixels of an image so far

    def size(self, shape: tuple[int, ...]) -> int:
        """How many images of a shape are a batch."""
        return self.devices * max(1, min(self.batch_size, self.batch_size * IMAGE // (shape[0] * shape[1])))

    def is_large(self, shape: tuple[int, ...]) -> bool:
        """Whether one image of a shape is more than a batch should be."""
        return shape[0] * shape[1] > self.batch_size * IMAGE

    def ahead(self, workers: int) -> int:
        """How many pairs are read ahead: few until it is known how large they are."""
        if not self.largest:
            return workers
        most = 2 * workers + self.batch_size * self.devices
        return max(1, min(most, _MOST_AHEAD * workers // self.largest))

    def of(self, opened: Iterator[tuple[str, OpenedPair]]) -> Iterator[Batch]:
        """Batches of the pairs."""
        waiting: dict[tuple[int, ...], list[tuple[str, OpenedPair]]] = {}
        pixels = 0
        for name, pair in opened:
            shape = pair.images["restored"].shape
            waiting.setdefault(shape, []).append((name, pair))
            pixels += shape[0] * shape[1]
            self.largest = max(self.largest, shape[0] * shape[1])
            if len(waiting[shape]) < self.size(shape):
                if pixels <= _MOST_WAITING * self.batch_size * self.devices * IMAGE:
                    continue
                shape = next(iter(waiting))
            alike = waiting.pop(shape)
            pixels -= len(alike) * shape[0] * shape[1]
            yield _stacked(alike)
        for alike in waiting.values():
            yield _stacked(alike)


def _stacked(pairs: Sequence[tuple[str, OpenedPair]]) -> Batch:
    kinds = pairs[0][1].images
    return [name for name, _ in pairs], {kind: np.stack([pair.images[kind] for _, pair in pairs]) for kind in kinds}


class _Devices:
    """The measures as programs on every device of this process."""

    def __init__(self, measures: Mapping[ImageMeasure, LoadedMeasure]):
        self.sharding = replicated_sharding()
        mesh = getattr(self.sharding, "mesh", None)
        self.count = 1 if mesh is None else mesh.size
        self.split = self.sharding
        if mesh is not None:
            self.split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(mesh.axis_names))
        self.programs = {one: compiled(parts, mesh, len(one.of)) for one, parts in measures.items()}
        self.params = {one: jax.device_put(parts.params, self.sharding) for one, parts in measures.items()}

    def start(self, images: Mapping[str, np.ndarray], size: int) -> dict[ImageMeasure, Any]:
        """Starts every measure whose images these can be, without waiting."""
        placed = {kind: jax.device_put(pad(array, size), self.split) for kind, array in images.items()}
        side = min(next(iter(images.values())).shape[1:3])
        # TF32 and bfloat16, the default on GPU and TPU, would show in the scores.
        with jax.default_matmul_precision("highest"):
            return {
                one: program(self.params[one], *(placed[kind] for kind in one.of))
                for one, program in self.programs.items()
                if side >= one.least
            }
