"""A folder or file by its path, or the files of a Hugging Face hub repository by its name."""

import fnmatch
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import huggingface_hub

from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.paths import in_bucket, to_path

Select = Callable[[Collection[str]], Sequence[str]]


def resolve(source: str | Path, select: Select, revision: str | None = None) -> Path:
    """The local path of `source`: itself where it exists, else a snapshot of the hub repository of that name.

    Only the files that `select` chooses are downloaded, by the hub's library into its cache. Without a connection, or
    with HF_HUB_OFFLINE set, the cache is used if it holds them.

    Args:
        source: a file, a folder, or a hub name like "owner/name".
        select: given the names of the repository's files, returns those to fetch; raises InterLCMError where one
            that it needs isn't there (see `matching` and `convert.checkpoints.needed`).
        revision: a branch, tag or commit of the repository.

    Raises:
        InterLCMError: there is no such path or repository, or it can't be had; the message says what to do.
    """
    path = to_path(source)
    if path.exists():
        return path
    name = str(source)
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) or isinstance(source, Path):
        form = "" if in_bucket(path) else " (a hub name has the form owner/name)"
        raise InterLCMError(f"{name}: no such file or folder{form}")
    # What reads HTTP takes a moment to import, and a local model needs none.
    from huggingface_hub import errors, utils

    from interlcm_jax.files.repository import ADVICE, list_repository

    try:
        utils.validate_repo_id(name)
    except errors.HFValidationError as error:
        raise InterLCMError(f"{name}: no such file or folder, and no hub name ({error})") from error
    try:
        repository = list_repository(name, revision)
    except InterLCMError as error:
        try:
            return cached(name, select, revision)
        except InterLCMError as absent:
            raise InterLCMError(f"{error}; {absent}") from error
    chosen = repository.choose(select)
    try:
        # Not `snapshot_download`: it asks for listings of its own, and waits for them without an end.
        paths = [huggingface_hub.hf_hub_download(name, file, revision=revision) for file in chosen]
    except errors.GatedRepoError as error:
        raise InterLCMError(f"{name}: {ADVICE['GatedRepo']}") from error
    except Exception as error:  # the hub's library passes on what HTTP, JSON and Xet raise
        reason = next(iter(str(error).strip().splitlines()), "")
        raise InterLCMError(
            f"{name}: the download failed ({type(error).__name__}: {reason}); check the connection"
        ) from error
    return Path(paths[0]).parents[chosen[0].count("/")]


def cached(name: str, select: Select, revision: str | None = None) -> Path:
    """The snapshot of a hub repository that an earlier download left in the hub's cache; arguments as in `resolve`.

    Raises:
        InterLCMError: the cache doesn't hold all that is needed.
    """
    try:
        # No pattern: the hub's library would want every file of the repository, and `select` wants just some.
        folder = huggingface_hub.snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=[])
    except (OSError, ValueError) as error:
        raise InterLCMError("the hub's cache doesn't hold it") from error
    names = [path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()]
    try:
        select(names)
    except InterLCMError as incomplete:
        raise InterLCMError(f"{incomplete} in the hub's cache") from incomplete
    return Path(folder)


def matching(*patterns: str) -> Select:
    """Selects the files that match any of the patterns, like "*.safetensors"; each pattern must match one."""

    def select(names: Collection[str]) -> list[str]:
        found = {pattern: fnmatch.filter(names, pattern) for pattern in patterns}
        if absent := [pattern for pattern, matches in found.items() if not matches]:
            raise InterLCMError(f"no {', no '.join(absent)}")
        return sorted({name for matches in found.values() for name in matches})

    return select
