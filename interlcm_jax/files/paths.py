"""Paths as users give them: of this machine, where ~ is expanded, or addresses in buckets, gs:// and s3://."""

import argparse
import os
import re
from pathlib import Path
from typing import Any

from interlcm_jax.errors import InterLCMError

BUCKETS = ("gs", "s3")
# pathlib makes one slash of two. Two letters at least, for Windows has drives.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)", re.IGNORECASE | re.DOTALL)
# Options whose text may well be an address of something else.
_NO_PATHS = {"license", "release"}


def to_path(path: str | os.PathLike) -> Path:
    """A path as the functions here take them: of pathlib where it is of this machine, else a `bucket.BucketPath`.

    Raises:
        InterLCMError: an address that is of no bucket, or what reads buckets isn't installed.
    """
    if in_bucket(path) and isinstance(path, Path):
        return path
    if not (address := _ADDRESS.fullmatch(str(path))):
        return path if isinstance(path, Path) else Path(path)
    scheme, rest = address[1].lower(), address[2]
    if scheme not in BUCKETS:
        raise InterLCMError(
            f"{scheme}://{rest}: {scheme}:// isn't read; only paths of this machine and addresses in buckets are, "
            f"{' and '.join(f'{name}://' for name in BUCKETS)}"
        )
    if not rest.strip("/"):
        raise InterLCMError(f"{scheme}://{rest}: names no bucket")
    try:
        from interlcm_jax.files.bucket import BucketPath
    except ImportError as error:
        raise InterLCMError(f"{scheme}://{rest}: buckets need pip install 'interlcm-jax[bucket]' ({error})") from error
    return BucketPath(f"{scheme}://{rest}")


def in_bucket(path: str | os.PathLike) -> bool:
    """Whether this is an address in a bucket."""
    return os.fspath(path).startswith(tuple(f"{name}://" for name in BUCKETS))


def to_local(path: str | os.PathLike) -> Path:
    """A path of this machine, for what must be mapped into memory or be read by others.

    Raises:
        InterLCMError: it is an address.
    """
    if in_bucket(path := to_path(path)):
        raise InterLCMError(f"{path}: is read from this machine's disk alone; copy it here first")
    return path


def resolve_paths(arguments: argparse.Namespace) -> None:
    """Makes paths of what a command line gives as paths: of addresses, and of ~, which a shell leaves in `--out=~/x`.

    Texts stay texts, for they may be names of models; of those, too, addresses are checked.

    Raises:
        InterLCMError: as `to_path`; names the option.
    """
    for name, value in vars(arguments).items():
        if name not in _NO_PATHS:
            each = [_resolved(name, one) for one in value] if isinstance(value, list) else _resolved(name, value)
            setattr(arguments, name, each)


def _resolved(name: str, value: Any) -> Any:
    if not isinstance(value, str | Path):
        return value
    # Unlike `Path.expanduser`, this leaves the name of an unknown user as it is.
    value = type(value)(os.path.expanduser(value))
    return to_path(value) if isinstance(value, Path) else check_address(name, value)


def check_address(name: str, text: str) -> str:
    """A text that may be an address, also behind `NAME=`; one that is must be of a bucket that can be read.

    Raises:
        InterLCMError: it isn't; names the option or field.
    """
    first, equals, rest = text.partition("=")
    address = rest if equals and "/" not in first else text
    if _ADDRESS.match(address):
        try:
            to_path(address)
        except InterLCMError as error:
            raise InterLCMError(f"{name}: {error}") from error
    return text
