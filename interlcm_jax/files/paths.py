"""Paths as users give them, of this machine's file system: ~ is expanded, and addresses of buckets are refused."""

import argparse
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interlcm_jax.errors import InterLCMError

# pathlib makes one slash of two. Also behind NAME=. Two letters at least, for Windows has drives.
_SCHEME = re.compile(r"(?:[^/=]*=)?[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
# Options whose text may well be an address.
_NO_PATHS = {"license", "release"}


def check_paths(arguments: argparse.Namespace) -> None:
    """Refuses addresses where a command takes paths or the names of models.

    Raises:
        InterLCMError: one is given; names it.
    """
    check_local({name: value for name, value in vars(arguments).items() if name not in _NO_PATHS})


def expand_home(arguments: argparse.Namespace) -> None:
    """Puts the home folder for ~ in paths and models: a shell leaves that of `--out=~/x` to the program."""
    for name, value in vars(arguments).items():
        if name not in _NO_PATHS:
            setattr(
                arguments, name, [_expanded(each) for each in value] if isinstance(value, list) else _expanded(value)
            )


def _expanded(value: Any) -> Any:
    # Unlike `Path.expanduser`, this leaves the name of an unknown user as it is.
    return type(value)(os.path.expanduser(value)) if isinstance(value, str | Path) else value


def check_local(values: Mapping[str, Any]) -> None:
    """Refuses addresses like `gs://bucket/folder` among values by name; those that are no text or path are passed over.

    Raises:
        InterLCMError: one is given; names it.
    """
    for name, value in values.items():
        for each in value if isinstance(value, list | tuple) else [value]:
            if isinstance(each, str | Path) and _SCHEME.match(str(each)):
                raise InterLCMError(
                    f"{name}: {each} is an address, but only paths of this machine are taken. Copy what is there, or "
                    "mount the bucket as a folder (gcsfuse, s3fs)"
                )
