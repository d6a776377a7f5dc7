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
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    if sys.platform == "win32":
        base = _local_app_data()
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "interlcm_jax"


def models_folder() -> Path:
    """For model folders, which are found by their names: the folder `INTERLCM_MODELS` names, else the platform's.

    Raises:
        RuntimeError: the user has no home folder, as in containers.
    """
    if named := os.environ.get(MODELS_VARIABLE):
        return Path(named)
    if sys.platform == "win32":
        base = _local_app_data()
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "interlcm_jax" / "models"


def _local_app_data() -> Path:
    return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
