"""InterLCM: few-step blind face restoration in JAX and Flax NNX.

    from interlcm_jax import InterLCM, restore_files

    model = InterLCM.from_pretrained()
    restore_files(model, "photos", "restored")

Importing this package does no work: JAX is imported with the first name that needs it.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interlcm_jax.errors import InterLCMError, WeightsError
    from interlcm_jax.photos.files import restore_files
    from interlcm_jax.photos.image import RestoreOptions, restore_photo
    from interlcm_jax.pipeline import InterLCM

__version__ = "0.2.0"
__all__ = [
    "InterLCM",
    "InterLCMError",
    "RestoreOptions",
    "WeightsError",
    "__version__",
    "restore_files",
    "restore_photo",
]

_MODULES = {
    "InterLCM": "pipeline",
    "InterLCMError": "errors",
    "RestoreOptions": "photos.image",
    "WeightsError": "errors",
    "restore_files": "photos.files",
    "restore_photo": "photos.image",
}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
