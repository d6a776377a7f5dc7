"""Finds a model by its path or its name; where none is named, the best one that is installed for a task."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path

from interlcm_jax.errors import InterLCMError, printable
from interlcm_jax.files.hub import Select, matching, resolve
from interlcm_jax.files.paths import to_path
from interlcm_jax.files.user_folders import models_folder
from interlcm_jax.model_folder import CONFIG, TASKS, ModelConfig, read_config

# Part of the package: a small model for restoration, so that there is one from the start.
SMALL = Path(__file__).parent / "weights" / "small"
_WHOLE = matching(CONFIG, "*.safetensors")


def find_model(model: str | Path | None = None, task: str = "restoration", select: Select = _WHOLE) -> Path:
    """The folder of a model.

    Args:
        model: a path; or the name of a folder in `user_folders.models_folder`, like "restoration_1step"; or a hub name,
            which is downloaded; None is `default_model`.
        task: for which a default model is wanted.
        select: which files of a hub repository are needed.

    Raises:
        InterLCMError: there is no such model; the message says how to get one.
    """
    if model is None:
        return default_model(task)
    if not to_path(model).exists() and (named := _named(str(model))):
        return named
    return resolve(model, select)


def default_model(task: str = "restoration") -> Path:
    """The model that runs where none is named.

    That is the newest of the task in `user_folders.models_folder`, where `interlcm download` puts the released models;
    else, for restoration, the small one in the package. A folder there that can't be read is passed over with a
    warning, so that it stands in no other model's way.

    Raises:
        InterLCMError: there is no such task or no model for it.
    """
    if task not in TASKS:
        raise InterLCMError(f"task {task!r} doesn't exist; choose one of {', '.join(TASKS)}")
    for folder in _newest_first():
        try:
            if read_config(folder).task == task:
                return folder
        except (InterLCMError, OSError) as error:
            logging.getLogger(__name__).warning("a model is passed over: %s", error)
    if (SMALL / CONFIG).is_file() and read_config(SMALL).task == task:
        return SMALL
    option = "" if task == "restoration" else f" --task {task}"
    raise InterLCMError(
        f"no model for {task} is there: get the released one with interlcm download{option}, or make one with interlcm "
        "convert and name it"
    )


def make_default(folder: Path) -> None:
    """Makes a model in `user_folders.models_folder` the default for its task: the newest one is."""
    (folder / CONFIG).touch()


def describe_model(folder: Path, config: ModelConfig, *, place: bool = True) -> str:
    """One line on which model runs: its name, resolution and licenses; for the small one, how to get the full one.

    Args:
        folder: the model's.
        config: what is in it.
        place: say where the model lies, too.
    """
    small = folder == SMALL
    where = f" ({folder.parent})" if place else ""
    name = "the small one of the package" if small else f"{folder.name}{where}"
    size, calls = config.image_size, f"{config.num_network_calls} network call{'s'[: config.num_network_calls > 1]}"
    line = f"model: {name}, {config.task} at {size} x {size} px, {calls}; {_licenses(config.weights)}"
    return printable(f"{line}; get the full-size model (512 x 512 px) with interlcm download" if small else line)


def _licenses(weights: Mapping[str, Mapping[str, str]]) -> str:
    """Each license, with the networks it is of where there are several."""
    networks: dict[str, list[str]] = {}
    for network, entry in weights.items():
        networks.setdefault(entry.get("license", "not stated"), []).append(network)
    if len(networks) < 2:
        return f"license: {next(iter(networks), 'not stated')}"
    return "licenses: " + ", ".join(f"{license} ({', '.join(names)})" for license, names in networks.items())


def _named(name: str) -> Path | None:
    """The model of this name in the models folder."""
    folder = _models() / name if _models() and re.fullmatch(r"\w[\w.-]*", name) else None
    return folder if folder and folder.is_dir() else None


def _newest_first() -> list[Path]:
    """The models in the models folder."""
    configs = _models().glob(f"*/{CONFIG}") if _models() else ()
    # Hidden folders are those that a conversion is still at work on, or left when it was killed.
    dated = [(path.stat().st_mtime_ns, path.parent) for path in configs if not path.parent.name.startswith(".")]
    return [folder for _, folder in sorted(dated, reverse=True)]


def _models() -> Path | None:
    """The models folder; None where the user has no home folder."""
    try:
        return models_folder()
    except RuntimeError:
        return None
