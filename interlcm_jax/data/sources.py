"""Where faces come from: random access to the records of a dataset or folder, in the order of their names."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from interlcm_jax.data.images import check_header, fit, read_face
from interlcm_jax.data.shards import check_sizes, local_copy
from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.paths import in_bucket, to_path
from interlcm_jax.imaging.listing import find_images

Record = dict[str, UInt8[np.ndarray, "S S 3"]]

# What tensorflow-datasets calls its own description, and the one split that is built.
INFO = "dataset_info.json"
SPLIT = "train"
LQ, HQ = "lq", "hq"
# More than these are named by their number.
_NAMED = 20
# To a bucket at the same time.
_REQUESTS = 32


@runtime_checkable
class Source(Protocol):
    """Records of "hq" and, where it is paired, "lq": RGB, uint8, all of one size. It can be sent to other processes."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...


@dataclasses.dataclass(frozen=True)
class Folder:
    """A folder of face images."""

    files: tuple[Path, ...]
    size: int

    @classmethod
    def open(cls, path: Path, size: int) -> "Folder":
        """Finds the images and checks their sizes, not yet their pixels.

        Raises:
            InterLCMError: there are none, or some can't be taken: all of these are named.
        """
        files = tuple(_images(path))
        _raise_all(to_path(path), "images that can't be trained on", _problems([(file,) for file in files]))
        return cls(files, size)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Record:
        return {HQ: read_face(self.files[index], self.size)}


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Low-quality faces in `lq/` and what they should become in `hq/`, under the same names but for the suffix."""

    names: tuple[str, ...]
    files: tuple[tuple[Path, Path], ...]
    size: int

    @classmethod
    def open(cls, path: Path, size: int) -> "Pairs":
        """Finds the pairs and checks that their sizes are the same.

        Raises:
            InterLCMError: images without a partner, or pairs that don't fit: all of these are named.
        """
        path = to_path(path)
        lq, hq = _by_name(path / LQ), _by_name(path / HQ)
        alone = [str(file) for name, file in (lq | hq).items() if name not in lq or name not in hq]
        _raise_all(path, f"images without a partner of the same name in {LQ}/ or {HQ}/", alone)
        names = tuple(sorted(lq))
        pairs = tuple((lq[name], hq[name]) for name in names)
        _raise_all(path, "pairs that don't fit", _problems(pairs))
        return cls(names, pairs, size)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Record:
        lq, hq = self.files[index]
        return {LQ: read_face(lq, self.size), HQ: read_face(hq, self.size)}


@dataclasses.dataclass(frozen=True)
class Built:
    """A dataset that `interlcm dataset` built: shards that tensorflow-datasets reads, without TensorFlow."""

    path: Path
    size: int

    @classmethod
    def open(cls, path: Path, size: int) -> "Built":
        """Opens it.

        Raises:
            InterLCMError: it isn't such a dataset, or not whole.
        """
        source = cls(to_path(path), size)
        if in_bucket(source.path):
            check_sizes(source.path)
        try:
            source[len(source) - 1]
        except InterLCMError:
            raise
        # tensorflow-datasets' own errors are of every kind.
        except Exception as error:
            raise InterLCMError(f"{path}: not a dataset that interlcm dataset built ({error})") from error
        return source

    @functools.cached_property
    def _records(self) -> Any:
        import tensorflow_datasets as tfds

        return tfds.builder_from_directory(os.fspath(self.path)).as_data_source(split=SPLIT)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        try:
            return {HQ: fit(self._records[index]["image"], self.size)}
        except Exception as error:
            raise InterLCMError(f"{self.path}: record {index} can't be read ({error})") from error

    def name(self, index: int) -> str:
        """The file name that a record had, relative to the folder it was built from."""
        return self._records[index]["name"].decode()


def open_source(path: str | Path, size: int, paired: bool = False, local_cache: float | None = None) -> Source:
    """Opens what is there: a paired folder if asked for, else a dataset that was built, else a folder of images.

    Args:
        path: the folder.
        size: of the records, pixels; images of other sizes are resized.
        paired: the folder holds `lq/` and `hq/`.
        local_cache: gigabytes that a copy of a dataset in a bucket may take on this machine; None: it is read where
            it is, which goes for gs:// alone.

    Raises:
        InterLCMError: it can't be opened, or what is in it can't be trained on.
    """
    path = to_path(path)
    if paired:
        return Pairs.open(path, size)
    if not (path / INFO).exists():
        return Folder.open(path, size)
    if in_bucket(path) and local_cache is not None:
        path = local_copy(path, local_cache)
    elif str(path).startswith("s3://"):
        raise InterLCMError(f"{path}: shards are read in place from gs:// alone; give --data.local-cache GB")
    return Built.open(path, size)


def identity(source: Source) -> str:
    """Tells sources of other records, or in another order, apart: by their number and names, wherever they lie."""
    match source:
        case Folder(files=files):
            names = "\n".join(file.name for file in files).encode("utf-8", "surrogateescape")
        case Pairs(names=pairs):
            names = "\n".join(pairs).encode("utf-8", "surrogateescape")
        case Built(path=path):
            names = (path / INFO).read_bytes()
        case _:
            names = b""
    return f"{len(source)} of {hashlib.sha256(names).hexdigest()[:8]}"


def listed(lines: Sequence[str]) -> str:
    """One line each, the first ones where there are many."""
    more = [f"and {len(lines) - _NAMED} more"] if len(lines) > _NAMED else []
    return "\n".join(f"  {line}" for line in [*lines[:_NAMED], *more])


def _by_name(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in _images(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in files:
            raise InterLCMError(f"{path}: the same name as {files[name].name}; pairs are matched without the suffix")
        files[name] = path
    return files


def _problems(groups: Sequence[tuple[Path, ...]]) -> list[str | None]:
    """`_problem` of each group; in a bucket, where each takes a request, several at a time."""
    if not (groups and in_bucket(groups[0][0])):
        return [_problem(*files) for files in groups]
    with ThreadPoolExecutor(_REQUESTS) as pool:
        return list(pool.map(lambda files: _problem(*files), groups))


def _problem(*files: Path) -> str | None:
    """What is wrong with a face, or with faces that should be of one size."""
    try:
        sizes = [check_header(file) for file in files]
    except InterLCMError as error:
        return str(error)
    if len(set(sizes)) > 1:
        return " and ".join(f"{file} ({size[0]} pixels)" for file, size in zip(files, sizes, strict=True))
    return None


def _raise_all(path: Path, what: str, problems: Sequence[str | None]) -> None:
    if found := [problem for problem in problems if problem is not None]:
        raise InterLCMError(f"{path}: {len(found)} {what}:\n{listed(found)}")


def _images(folder: Path) -> list[Path]:
    found = find_images(folder)
    _raise_all(to_path(folder), "folders that can't be entered", list(map(str, found.closed)))
    return found.images
