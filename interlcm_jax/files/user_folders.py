"""Where a user's files are kept that belong to no project: what can be made or fetched again, and models."""

import os
import sys
from pathlib import Path

CACHE_VARIABLE, MODELS_VARIABLE = "INTERLCM_CACHE", "INTERLCM_MODELS"


def cache_folder() -> Path:
    """For compiled programs and downloads: the folder `INTERLCM_CACHE` names, else the platform's.

    Raises:
        RuntimeError: the user has no home folder, as in containers.
    """
    return _named_by(CACHE_VARIABLE) or _platform("Caches", "XDG_CACHE_HOME", ".cache") / "interlcm_jax"


def models_folder() -> Path:
    """For model folders, which are found by their names: the folder `INTERLCM_MODELS` names, else the platform's.

    Raises:
        RuntimeError: the user has no home folder, as in containers.
    """
    data = ("Application Support", "XDG_DATA_HOME", ".local/share")
    return _named_by(MODELS_VARIABLE) or _platform(*data) / "interlcm_jax" / "models"


def upsamplers_folder() -> Path:
    """For upsamplers, which are found by their names: a folder among the models.

    Raises:
        RuntimeError: as `models_folder`.
    """
    return models_folder() / "upsamplers"


def _named_by(variable: str) -> Path | None:
    return Path(os.path.expanduser(os.environ[variable])) if os.environ.get(variable) else None


def _platform(mac: str, xdg_variable: str, xdg_default: str) -> Path:
    """Where programs keep such files: on macOS under Library, on Linux as the XDG base directories say."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / mac
    return Path(os.environ.get(xdg_variable) or Path.home() / xdg_default)
