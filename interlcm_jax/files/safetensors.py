"""safetensors files read and written tensor by tensor, so that no file need fit in memory.

The `safetensors` library checks the file; reading goes through the file's offsets, since its own reader maps the
whole file into memory, and its writer wants every tensor at once.
"""

import contextlib
import dataclasses
import json
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from interlcm_jax.errors import WeightsError
from interlcm_jax.files.paths import in_bucket

_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclasses.dataclass(frozen=True)
class LazyTensor:
    """A tensor that is known by shape and dtype and read when asked for.

    Attributes:
        shape: its shape.
        dtype: its NumPy dtype (bfloat16 as ml_dtypes has it).
        source: the file it comes from, for messages.
        load: returns the elements under an index (`...` or a tuple of slices) as a NumPy array of its own.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    source: Path
    load: Callable[[Any], np.ndarray]

    def read(self, index: Any = ...) -> np.ndarray:
        """Reads the whole tensor, or the part of it under `index`."""
        return self.load(index)

    def transposed(self, axes: tuple[int, ...]) -> "LazyTensor":
        """The same tensor with its axes permuted as `numpy.transpose` does, still unread."""

        def load(index: Any) -> np.ndarray:
            if isinstance(index, tuple) and len(index) == len(axes) and all(isinstance(i, slice) for i in index):
                # One slice for each axis, as a sharding asks for: only that part is read.
                return self.read(tuple(index[axes.index(axis)] for axis in range(len(axes)))).transpose(axes)
            return self.read().transpose(axes)[index]

        return dataclasses.replace(self, shape=tuple(self.shape[a] for a in axes), load=load)

    def astype(self, dtype: np.dtype) -> "LazyTensor":
        """The same tensor in another dtype, still unread.

        Raises:
            WeightsError: when it is read: a number is too large for that dtype.
        """

        def load(index: Any) -> np.ndarray:
            before = self.read(index)
            with np.errstate(over="ignore"):
                after = before.astype(dtype)
            if not np.isfinite(after[np.isfinite(before)]).all():
                raise WeightsError(self.source, [f"a number is too large for {dtype}: {np.abs(before).max():.4g}"])
            return after

        return dataclasses.replace(self, dtype=np.dtype(dtype), load=load)


def from_array(array: np.ndarray, source: Path) -> LazyTensor:
    """Wraps an array that is in memory already."""
    return LazyTensor(array.shape, array.dtype, source, lambda index: np.asarray(array[index]))


def open_safetensors(path: Path) -> dict[str, LazyTensor]:
    """Lists a file's tensors by name, without reading them.

    Raises:
        WeightsError: the file isn't a whole safetensors file, names a tensor twice, or holds a dtype that no
            network here uses.
        OSError: the file can't be opened.
    """
    head = _read_head(path)
    try:
        with _checkable(path, head) as local, safe_open(local, framework="np"):
            pass
    except SafetensorError as error:
        raise WeightsError(path, [f"not a whole safetensors file ({error})"], "Download or copy it again.") from error
    twice: list[str] = []

    def entries(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # A dict hides a name that stands twice.
        if len(found := dict(pairs)) < len(pairs):
            twice.extend(sorted(name for name, count in Counter(name for name, _ in pairs).items() if count > 1))
        return found

    header = json.loads(head[8:], object_pairs_hook=entries)
    header.pop("__metadata__", None)
    if twice:
        raise WeightsError(path, [f"{len(twice)} duplicate keys: {', '.join(twice)}"])
    if odd := [f"{name} ({info['dtype']})" for name, info in header.items() if info["dtype"] not in _DTYPES]:
        raise WeightsError(path, [f"{len(odd)} tensors of an unknown dtype: {', '.join(odd)}"])
    if in_bucket(path):
        read = _once_each(path)
        return {name: _remote(path, read, len(head), info) for name, info in header.items()}
    return {name: _lazy(path, len(head), info) for name, info in header.items()}


def _read_head(path: Path) -> bytes:
    """The length of the header, and the header; no more than there is."""
    size = path.stat().st_size
    if in_bucket(path):
        length = path.read_range(0, min(size, 8))
        return length + path.read_range(len(length), min(size, 8 + int.from_bytes(length, "little")))
    with open(path, "rb") as file:
        length = file.read(8)
        return length + file.read(min(size, int.from_bytes(length, "little")))


@contextlib.contextmanager
def _checkable(path: Path, head: bytes) -> Iterator[Path]:
    """A file of this machine for the library to check: of an object in a bucket, the header before as many zeros."""
    if not in_bucket(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="interlcm-") as folder:
        sparse = Path(folder) / path.name
        sparse.write_bytes(head)
        # A hole, which takes no space.
        os.truncate(sparse, path.stat().st_size)
        yield sparse


def write_safetensors(
    path: Path,
    tensors: Mapping[str, LazyTensor],
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a file tensor by tensor, in the order of the names; the peak is one tensor.

    Args:
        path: the file; overwritten.
        tensors: what to write.
        metadata: the file's own text notes.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    # Wider types first keeps every tensor aligned to its own size, as the library's writer does.
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    for name in order:
        tensor = tensors[name]
        end = offset + int(np.prod(tensor.shape, dtype=np.int64)) * tensor.dtype.itemsize
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            array = np.ascontiguousarray(tensors[name].read())
            file.write(array.reshape(-1).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())


def _lazy(path: Path, data_start: int, info: Mapping[str, Any]) -> LazyTensor:
    shape, dtype = tuple(info["shape"]), _DTYPES[info["dtype"]]
    offset = data_start + info["data_offsets"][0]

    def load(index: Any) -> np.ndarray:
        if 0 in shape:
            return np.zeros(shape, dtype)[index]
        # The map lives for this one read: its pages don't stay in memory.
        return np.array(np.memmap(path, dtype, "r", offset, shape)[index])

    return LazyTensor(shape, dtype, path, load)


def _once_each(path: Path) -> Callable[[int, int, int], bytes]:
    """What reads a range of a tensor, given where the tensor begins. Of the tensor that a thread is at, each range is
    read once: devices share parts, or have parts that lie among each other.
    """
    held = threading.local()

    def read(tensor: int, start: int, end: int) -> bytes:
        if getattr(held, "tensor", None) != tensor:
            held.tensor, held.parts = tensor, {}
        if (start, end) not in held.parts:
            held.parts[start, end] = path.read_range(start, end)
        return held.parts[start, end]

    return read


def _remote(path: Path, read: Callable[[int, int, int], bytes], data_start: int, info: Mapping[str, Any]) -> LazyTensor:
    """A tensor in a bucket: of a part of it, the rows along the first axis are read that it has some of."""
    shape, dtype = tuple(info["shape"]), _DTYPES[info["dtype"]]
    begin, end = (data_start + offset for offset in info["data_offsets"])

    def load(index: Any) -> np.ndarray:
        if not shape or 0 in shape:
            return np.frombuffer(read(begin, begin, end), dtype).reshape(shape)[index].copy()
        first, *rest = index if isinstance(index, tuple) else (slice(None), ...)
        start, stop, _ = first.indices(shape[0])
        row = (end - begin) // shape[0]
        data = read(begin, begin + start * row, begin + stop * row)
        return np.frombuffer(data, dtype).reshape(stop - start, *shape[1:])[(slice(None), *rest)].copy()

    return LazyTensor(shape, dtype, path, load)
