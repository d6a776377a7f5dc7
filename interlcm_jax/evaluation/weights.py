"""Where the metrics' networks come from. The package ships none: a metric without its weights is named and left out."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from interlcm_jax.convert import lpips
from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.paths import to_path
from interlcm_jax.metrics import arcface, fan, inception, musiq, niqe
from interlcm_jax.metrics.frechet import Statistics
from interlcm_jax.metrics.weights import DEG, FAN, FFHQ, IDA, INCEPTION, Published


class NoWeightsError(InterLCMError):
    """Weights that nobody named aren't anywhere they are looked for."""


@dataclasses.dataclass(frozen=True)
class Weights:
    """Published weights, or statistics, that a metric needs.

    Attributes:
        files: what they are called in a folder, any one of these.
        load: reads such a file.
        hub: the name of a hub repository that `load` takes as well, or None.
    """

    files: tuple[str, ...]
    load: Callable[[str | Path], Any]
    hub: str | None = None

    def find(self, folder: Path) -> Path | None:
        """The file in a folder, if it is there."""
        return next((folder / name for name in self.files if (folder / name).is_file()), None)


def _load_lpips(source: str | Path) -> Any:
    # lpips-j's weights are two files of one folder.
    return lpips.load(source.parent if isinstance(source, Path) and source.suffix == ".h5" else source)


def _published(public: Published, load: Callable[[str | Path], Any]) -> Weights:
    """A public file, or what `metrics.weights.save` made of it under its name."""
    return Weights((public.file, str(Path(public.file).with_suffix(".safetensors"))), load)


WEIGHTS = {
    "lpips": Weights((lpips.FILE, "vgg16_weights.h5"), _load_lpips, lpips.HUB),
    "inception": _published(INCEPTION, inception.load),
    "ffhq": Weights((FFHQ.file, "inception_FFHQ_512.pth", "inception_FFHQ_512.npz"), Statistics.load),
    "deg": _published(DEG, lambda path: arcface.load(path, DEG)),
    "ida": _published(IDA, lambda path: arcface.load(path, IDA)),
    "fan": _published(FAN, fan.load),
    "niqe": Weights((niqe.PUBLISHED_FILE,), niqe.load_pristine),
    "musiq": Weights(
        (musiq.PYIQA_FILE, musiq.PYIQA_FILE.replace(".pth", ".safetensors"), musiq.OFFICIAL_FILE), musiq.load
    ),
}


class Library:
    """The weights that can be found, each loaded once.

    Args:
        given: what the user named: folders that hold published files under their own names, and NAME=PATH for one of
            `WEIGHTS`, where PATH is a file, a folder or a hub name.
        folders: more folders to look in after these, which may not exist.

    Raises:
        InterLCMError: NAME isn't known, or a folder isn't there.
    """

    def __init__(self, given: Sequence[str] = (), folders: Sequence[Path] = ()):
        self.named: dict[str, str] = {}
        self.folders: list[Path] = []
        self._loaded: dict[str, Any] = {}
        for text in given:
            name, equals, path = text.partition("=")
            if equals and name in WEIGHTS:
                self.named[name] = path
            elif to_path(text).is_dir():
                self.folders.append(to_path(text))
            else:
                raise InterLCMError(
                    f"{text}: weights are a folder that is there, or NAME=PATH with NAME among {', '.join(WEIGHTS)}"
                )
        self.folders += folders

    def load(self, name: str) -> Any:
        """The weights of this name.

        Raises:
            NoWeightsError: they weren't named, and are in no folder and not on the hub.
            InterLCMError: the file that was named or found isn't whole, or isn't the right one.
        """
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def _load(self, name: str) -> Any:
        weights = WEIGHTS[name]
        if name in self.named:
            path = to_path(self.named[name])
            found = (weights.find(path) or path) if path.is_dir() else path
            return weights.load(found if found.exists() else self.named[name])
        if found := next(filter(None, map(weights.find, self.folders)), None):
            return weights.load(found)
        files = " or ".join(weights.files)
        if weights.hub is None:
            raise NoWeightsError(f"no {files}; give a folder that holds it, or its path, with --weights")
        try:
            return weights.load(weights.hub)
        except InterLCMError as error:
            raise NoWeightsError(f"no {files} in a folder of --weights, and {error}") from error
