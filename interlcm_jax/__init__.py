"""InterLCM: few-step blind face restoration in JAX and Flax NNX."""

import importlib

__version__ = "0.1.0"
__all__ = ["InterLCM", "InterLCMError", "WeightsError", "__version__"]

_PUBLIC = {
    "InterLCM": "interlcm_jax.pipeline",
    "InterLCMError": "interlcm_jax.errors",
    "WeightsError": "interlcm_jax.errors",
}


def __getattr__(name: str) -> object:
    # Imported when asked for: the command's --help and error paths needn't wait for JAX.
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
