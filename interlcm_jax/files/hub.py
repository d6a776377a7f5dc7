"""A folder or file by its path, or the files of a Hugging Face hub repository by its name."""

import dataclasses
import fnmatch
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from interlcm_jax.errors import InterLCMError

Select = Callable[[Collection[str]], Sequence[str]]


def resolve(source: str | Path, select: Select, revision: str | None = None) -> Path:
    """The local path of `source`: itself where it exists, else a snapshot of the hub repository of that name.

    Only the files that `select` chooses are downloaded. Without a connection, or with HF_HUB_OFFLINE set, the hub's
    cache is used if it holds them.

    Args:
        source: a file, a folder, or a hub name like "owner/name".
        select: given the names of the repository's files, returns those to fetch; raises InterLCMError where one
            that it needs isn't there (see `matching` and `convert.checkpoints.needed`).
        revision: a branch, tag or commit of the repository.

    Raises:
        InterLCMError: there is no such path or repository, or it can't be had; the message says what to do.
    """
    if Path(source).exists():
        return Path(source)
    name = str(source)
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) or isinstance(source, Path):
        raise InterLCMError(f"{name}: no such file or folder (a hub name has the form owner/name)")
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise InterLCMError(f"{name}: no such file or folder, and no hub name ({error})") from error
    try:
        names = huggingface_hub.HfApi().list_repo_files(name, revision=revision)
    except (HTTPError, OSError) as error:
        try:
            return cached(name, select, revision)
        except InterLCMError as absent:
            raise InterLCMError(f"{name}: {_reason(error)}; {absent}") from error
    chosen = _select(name, select, names)
    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=chosen))
    except (HTTPError, OSError) as error:
        raise InterLCMError(f"{name}: {_reason(error)}") from error


def cached(name: str, select: Select, revision: str | None = None) -> Path:
    """The snapshot of a hub repository that an earlier download left in the hub's cache; arguments as in `resolve`.

    Raises:
        InterLCMError: the cache doesn't hold all that is needed.
    """
    try:
        # No pattern: the hub's library would want every file of the repository, and `select` wants just some.
        folder = huggingface_hub.snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=[])
    except OSError as error:
        raise InterLCMError("the hub's cache doesn't hold it") from error
    names = [path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()]
    try:
        select(names)
    except InterLCMError as incomplete:
        raise InterLCMError(f"{incomplete} in the hub's cache") from incomplete
    return Path(folder)


@dataclasses.dataclass(frozen=True)
class Published:
    """A file of a hub repository.

    Attributes:
        name: its path in the repository, like "unet/config.json".
        url: where it is fetched from, in the version listed.
        size: in bytes, if the hub tells it.
        sha256: in hexadecimal digits, if the hub tells it: it does for large files.
    """

    name: str
    url: str
    size: int | None
    sha256: str | None


def listing(name: str, select: Select) -> tuple[list[Published], str | None]:
    """The files of a hub repository that `select` chooses, in its newest version; and its license, if it states one.

    HF_ENDPOINT names another hub, as for all of the hub's library.

    Raises:
        InterLCMError: there is no such repository, it lacks a file, or the hub can't be reached.
    """
    try:
        info = huggingface_hub.HfApi().model_info(name, files_metadata=True)
    except (HTTPError, OSError) as error:
        raise InterLCMError(f"{name}: {_reason(error)}") from error
    there = {file.rfilename: file for file in info.siblings or ()}
    files = [
        Published(
            file,
            huggingface_hub.hf_hub_url(name, file, revision=info.sha),
            there[file].size,
            there[file].lfs.sha256 if there[file].lfs else None,
        )
        for file in _select(name, select, there.keys())
    ]
    return files, info.card_data.get("license") if info.card_data else None


def matching(*patterns: str) -> Select:
    """Selects the files that match any of the patterns, like "*.safetensors"; each pattern must match one."""

    def select(names: Collection[str]) -> list[str]:
        found = {pattern: fnmatch.filter(names, pattern) for pattern in patterns}
        if absent := [pattern for pattern, matches in found.items() if not matches]:
            raise InterLCMError(f"no {', no '.join(absent)}")
        return sorted({name for matches in found.values() for name in matches})

    return select


def _select(name: str, select: Select, names: Collection[str]) -> Sequence[str]:
    try:
        return select(names)
    except InterLCMError as error:
        raise InterLCMError(f"{name}: {error}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE forbids to download it; unset it, or give a local folder"
    if isinstance(error, GatedRepoError):
        return "its owner gates it; accept the terms on its page, then log in with `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return "no such path here and no such repository on the hub (if it is private, log in with `hf auth login`)"
    if isinstance(error, RevisionNotFoundError):
        return "the repository has no such revision"
    summary = str(error).strip().splitlines()
    return f"the download failed ({type(error).__name__}: {summary[0] if summary else ''}); check the connection"
