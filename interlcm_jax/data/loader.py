"""Batches of low-quality and high-quality faces, the same whatever processes and workers they are made by.

What is in batch k depends on (seed, k, batch size) alone: an epoch's order, an image's flip and its degradation are
functions of the seed, the record and the epoch. So the position in the data is a number, and nothing else is saved.
"""

import atexit
import dataclasses
import functools
import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import Int64

from interlcm_jax.data.augment import WarpConfig, draw_crop, draw_warp, warp
from interlcm_jax.data.degradation import DegradationConfig, degrade, draw
from interlcm_jax.data.photometric import PhotometricConfig, change_tones, draw_tones
from interlcm_jax.data.randomness import rng_for
from interlcm_jax.data.sources import HQ, LQ, Source
from interlcm_jax.errors import InterLCMError

# What Grain calls its worker processes, and seconds between looks at them.
_WORKER, _LOOK_EVERY = "grain-process-prefetch", 1.0
# Batches before the data ends, which it never should.
_ENDLESS = 2**40


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The training faces.

    Attributes:
        path: a dataset that `interlcm dataset` built, a folder of face images, or a paired folder.
        paired: the folder holds `lq/` and `hq/`, and nothing is degraded.
        image_size: pixels; images of other sizes are resized.
        degradation: how low-quality faces are made.
        flip: how many images are mirrored.
        warp: how far images are turned, scaled and moved.
        channel_permutation: how many images have their red, green and blue exchanged at random, for an autoencoder
            that is to keep every color: faces alone have few.
        photometric: how images are put into other light, before they are degraded.
        crop: pixels of a square cut out of each image at random; None: all of it.
        local_cache: gigabytes of this machine's disk that a copy of a dataset in a bucket may take, made before the
            first step; None: gs:// is read in place.
        workers: processes that make batches; 0: a thread of this one does.
        prefetch: batches that each worker makes ahead; 0, without workers: none, on demand.

    Raises:
        InterLCMError: a field is out of range; the message names it.
    """

    path: str | None = None
    paired: bool = False
    image_size: int = 512
    degradation: DegradationConfig = dataclasses.field(default_factory=DegradationConfig)
    flip: float = 0.5
    warp: WarpConfig = dataclasses.field(default_factory=WarpConfig)
    channel_permutation: float = 0.0
    photometric: PhotometricConfig = dataclasses.field(default_factory=PhotometricConfig)
    crop: int | None = None
    local_cache: float | None = None
    workers: int = 0
    prefetch: int = 2

    def __post_init__(self):
        for name in ("flip", "channel_permutation"):
            if not 0 <= getattr(self, name) <= 1:
                raise InterLCMError(f"data.{name} is {getattr(self, name)}, but must be from 0 to 1")
        if self.crop is not None and not 1 <= self.crop <= self.image_size:
            raise InterLCMError(f"data.crop is {self.crop}, but must be from 1 to data.image_size, {self.image_size}")
        for name, least in (("image_size", 1), ("workers", 0), ("prefetch", 1 if self.workers else 0)):
            if getattr(self, name) < least:
                raise InterLCMError(f"data.{name} is {getattr(self, name)}, but must be at least {least}")


def batches(
    source: Source,
    config: DataConfig,
    *,
    seed: int,
    batch_size: int,
    start: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
    """This process's share of batch `start` and all that follow, without end.

    Every record comes once an epoch, in an order of the epoch's own; a batch may reach over the end of one.
    Closing the iterator ends its workers.

    Args:
        source: the records.
        config: how they are flipped and degraded, and by how many workers.
        seed: of all that is random.
        batch_size: over all processes.
        start: the first batch; what follows is what an unbroken run would give.
        process_index: this process's number; process p gets the p-th of equal slices.
        process_count: of all processes.

    Yields:
        "lq" and "hq", uint8 (B, S, S, 3), and "index", int64 (B,): the number of each record in the source.

    Raises:
        InterLCMError: an argument is out of range; or, from the iterator, an image can't be read.
    """
    _check(source, seed, batch_size, start, process_index, process_count)
    share = batch_size // process_count
    first = start * batch_size + process_index * share
    example = _Example(source, config, seed, batch_size, share, first)
    return _run(example, config.workers, config.prefetch)


def _check(source: Source, seed: int, batch_size: int, start: int, process_index: int, process_count: int) -> None:
    rng_for(seed, "order", 0, 0)
    if not len(source):
        raise InterLCMError("the data source is empty")
    if batch_size < 1 or batch_size % process_count:
        raise InterLCMError(f"batch_size is {batch_size}, but must be a multiple of the {process_count} processes")
    if start < 0:
        raise InterLCMError(f"start is {start}, but must be a batch number from 0")
    if not 0 <= process_index < process_count:
        raise InterLCMError(f"process_index is {process_index}, but must be from 0 to {process_count - 1}")


@dataclasses.dataclass(frozen=True)
class _Example:
    """From the number of an example within this process's share to the example."""

    source: Source
    config: DataConfig
    seed: int
    batch_size: int
    share: int
    first: int

    def __call__(self, number: int) -> dict[str, np.ndarray]:
        batch, within = divmod(int(number), self.share)
        epoch, rank = divmod(self.first + batch * self.batch_size + within, len(self.source))
        record = int(_order(self.seed, epoch, len(self.source))[rank])
        images = dict(self.source[record])
        if rng_for(self.seed, "flip", record, epoch).random() < self.config.flip:
            images = {name: np.ascontiguousarray(image[:, ::-1]) for name, image in images.items()}
        if self.config.warp.any:
            matrix = draw_warp(self.config.warp, self.config.image_size, rng_for(self.seed, "warp", record, epoch))
            images = {name: warp(image, matrix) for name, image in images.items()}
        colors = rng_for(self.seed, "colors", record, epoch)
        if colors.random() < self.config.channel_permutation:
            order = colors.permutation(3)
            images = {name: np.ascontiguousarray(image[..., order]) for name, image in images.items()}
        tones = draw_tones(self.config.photometric, rng_for(self.seed, "tones", record, epoch))
        if tones is not None:
            images = {name: change_tones(image, tones) for name, image in images.items()}
        if LQ not in images:
            rng = rng_for(self.seed, "degradation", record, epoch)
            images[LQ] = degrade(images[HQ], draw(self.config.degradation, rng))
        if self.config.crop is not None:
            # Last: what a face loses, it loses as a whole.
            window = draw_crop(self.config.crop, self.config.image_size, rng_for(self.seed, "crop", record, epoch))
            images = {name: np.ascontiguousarray(image[window]) for name, image in images.items()}
        return {LQ: images[LQ], HQ: images[HQ], "index": np.int64(record)}


# Two: a batch may reach over the end of an epoch.
@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> Int64[np.ndarray, "count"]:
    return rng_for(seed, "order", 0, epoch).permutation(count)


def _run(example: _Example, workers: int, prefetch: int) -> Iterator[dict[str, np.ndarray]]:
    # Here: Grain imports JAX for its tree functions.
    import grain
    from absl import flags

    ahead = 0 if workers else prefetch
    options = grain.ReadOptions(num_threads=min(ahead, 1), prefetch_buffer_size=ahead)
    dataset = grain.MapDataset.range(_ENDLESS * example.share).map(example).batch(example.share)
    dataset = dataset.to_iter_dataset(options)
    if workers:
        # Grain asks absl for options of its own, and absl refuses until a command line was parsed.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        # Through pipes: containers have little shared memory (64 MB by default), and overrunning it kills the worker.
        pipes = grain.experimental.DatasetOptions(min_shm_size=sys.maxsize)
        dataset = grain.experimental.WithOptionsIterDataset(dataset, pipes)
        processes = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=prefetch)
        dataset = dataset.mp_prefetch(processes, worker_init_fn=_start_worker)
    iterator = iter(dataset)
    if workers:
        yield from _watched(iterator)
        return
    try:
        yield from iterator
    finally:
        iterator.close()


def _watched(iterator: Iterator[dict[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
    """Batches made by worker processes. Grain waits for ever for one that was killed as it sent a batch."""
    workers: set[multiprocessing.process.BaseProcess] = set()
    try:
        while True:
            yield _next(iterator, workers)
    finally:
        if any(worker.exitcode not in (None, 0) for worker in workers):
            for worker in workers:
                worker.kill()
            # Grain's own end would wait for the other half of a batch, now and as the program ends.
            atexit.register(_leave)
        else:
            iterator.close()


def _leave() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(2)


def _next(
    iterator: Iterator[dict[str, np.ndarray]], workers: set[multiprocessing.process.BaseProcess]
) -> dict[str, np.ndarray]:
    made: queue.SimpleQueue[dict[str, np.ndarray] | Exception] = queue.SimpleQueue()
    threading.Thread(target=_make, args=[iterator, made], daemon=True).start()
    while True:
        # Looked for each time: they are started with the first batch.
        workers |= {each for each in multiprocessing.active_children() if each.name.startswith(_WORKER)}
        _check_alive(workers)
        try:
            batch = made.get(timeout=_LOOK_EVERY)
        except queue.Empty:
            continue
        if isinstance(batch, Exception):
            raise batch
        return batch


def _make(iterator: Iterator[dict[str, np.ndarray]], made: queue.SimpleQueue) -> None:
    try:
        made.put(next(iterator))
    except Exception as error:
        made.put(error)


def _check_alive(workers: set[multiprocessing.process.BaseProcess]) -> None:
    if dead := [worker.exitcode for worker in workers if worker.exitcode not in (None, 0)]:
        how = f"signal {-dead[0]}" if dead[0] < 0 else f"exit code {dead[0]}"
        raise InterLCMError(
            f"a process that makes training images ended by {how}; where the machine was out of memory, fewer "
            "data.workers and a smaller data.prefetch take less"
        )


def _start_worker(index: int, count: int) -> None:
    """Makes a worker end with its parent and not before it, and keep to one core."""
    cv2.setNumThreads(0)
    # Ctrl-C and a scheduler's SIGTERM reach every process of a job; the parent may want to save before it goes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
