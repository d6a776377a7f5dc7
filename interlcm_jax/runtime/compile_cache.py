"""Compiled programs kept on disk: the second run of a command starts without compiling."""

import os
from pathlib import Path
from typing import Any

from interlcm_jax.files.paths import in_bucket
from interlcm_jax.files.user_folders import CACHE_VARIABLE, cache_folder

# Programs that compile faster than this aren't worth a file, in seconds.
MIN_COMPILE_TIME = 0.5


def enable(folder: Any = None) -> Any:
    """Switches on JAX's persistent compilation cache for this process.

    A folder that `jax_compilation_cache_dir` names already is left as it is. Of several processes JAX has the first
    alone write: theirs should be a folder that all of them see. On TPUs and GPUs all find the same programs there.

    Args:
        folder: where programs are kept, a `pathlib.Path` or of a bucket an `etils.epath.Path`; by default, and where
            INTERLCM_CACHE is set, `user_folders.cache_folder`.

    Returns:
        The folder; or None where nothing can be written, and the process goes on without a cache.
    """
    import jax

    if jax.config.jax_compilation_cache_dir:
        return Path(jax.config.jax_compilation_cache_dir)
    try:
        folder = (cache_folder() if folder is None or os.environ.get(CACHE_VARIABLE) else folder) / "xla"
        folder.mkdir(parents=True, exist_ok=True)
    # RuntimeError: the user has no home folder, as in containers.
    except (OSError, RuntimeError):
        return None
    if isinstance(folder, Path) and not in_bucket(folder) and not os.access(folder, os.W_OK):
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_COMPILE_TIME)
    return folder
