"""The released models and upsamplers: their files from the Hugging Face hub and from GitHub, and folders of them."""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from interlcm_jax.convert import model as conversion
from interlcm_jax.convert.optional import add_faces
from interlcm_jax.convert.pickles import import_torch
from interlcm_jax.convert.upsampler import LICENSE as LICENSE_OF_UPSAMPLERS
from interlcm_jax.convert.upsampler import published_name, read_upsampler, write_upsampler
from interlcm_jax.default_model import make_default
from interlcm_jax.errors import InterLCMError, WeightsError
from interlcm_jax.files.atomic import check_absent
from interlcm_jax.files.fetch import Progress, fetch
from interlcm_jax.files.hub import Select, cached
from interlcm_jax.files.repository import list_repository
from interlcm_jax.files.user_folders import (
    CACHE_VARIABLE,
    MODELS_VARIABLE,
    cache_folder,
    models_folder,
    upsamplers_folder,
)
from interlcm_jax.model_folder import CONFIG, weights_file

LCM, CLIP = "SimianLuo/LCM_Dreamshaper_v7", "openai/clip-vit-base-patch16"
RELEASE = "https://github.com/sen-mao/InterLCM/releases/download/v0.1.0"
# Of the released Visual and Spatial Encoders.
LICENSE = "non-commercial use only, see github.com/sen-mao/InterLCM"
# What the authors released, by task and number of network calls: how the names of the files end.
RELEASED = {
    ("restoration", 3): "3step",
    ("restoration", 1): "1step",
    ("colorization", 1): "colorization_1step",
    ("inpainting", 1): "inpainting_1step",
}
UPSAMPLERS_RELEASE = "https://github.com/xinntao/Real-ESRGAN/releases/download"
# Of Real-ESRGAN, by our names: version and file, and its SHA-256.
UPSAMPLERS = {
    "x2plus": ("v0.2.1/RealESRGAN_x2plus.pth", "49fafd45f8fd7aa8d31ab2a22d14d91b536c34494a5cfe31eb5d89c2fa266abb"),
    "x4plus": ("v0.1.0/RealESRGAN_x4plus.pth", "4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1"),
    "general-x4v3": (
        "v0.2.5.0/realesr-general-x4v3.pth",
        "8dc7edb9ac80ccdc30c3a5dca6616509367f05fbc184ad95b731f05bece96292",
    ),
}
_TRAINED = ("visual_encoder", "spatial_encoder")
# What the release finds and cuts out faces with: facexlib's files, by the version they were published with.
FACEXLIB = "https://github.com/xinntao/facexlib/releases/download"
FACES = {"retinaface": "v0.1.0/detection_Resnet50_Final.pth", "parsenet": "v0.2.2/parsing_parsenet.pth"}
FACES_LICENSE = "MIT, see github.com/xinntao/facexlib"


def download(
    task: str = "restoration",
    num_network_calls: int | None = None,
    out: Path | None = None,
    *,
    release: str = RELEASE,
    fetching: Progress = lambda label, count, total: None,
    converting: conversion.Progress = lambda network, count, total: None,
) -> Path:
    """Downloads a released model (5 GB), converts it, and makes it the default for its task.

    What it finds faces with is for `download_faces` to add. The files stay in `downloads_folder`, as the models share
    most of them; the hub's cache is used where it holds them.
    A download that was interrupted goes on where it stopped.

    Args:
        task: "restoration", "colorization" or "inpainting".
        num_network_calls: 3 or 1; None is the most that was released for the task.
        out: the model folder to make; by default one in `user_folders.models_folder`, which is then the default model.
            Where that one is there already, nothing is downloaded.
        release: where the release's files are, for a mirror.
        fetching: see `fetch.Progress`.
        converting: see `convert.model.Progress`.

    Returns:
        The model folder.

    Raises:
        InterLCMError: no such model was released, `out` exists, PyTorch isn't installed, another download is under way,
            or as `fetch.fetch`, `repository.list_repository` and `convert.model.convert`.
    """
    calls = _calls(task, num_network_calls)
    folder = out or _in_home(models_folder) / f"{task}_{calls}step"
    if out is None and (folder / CONFIG).is_file():
        make_default(folder)
        return folder
    check_absent(folder, CONFIG)
    _check_address(release)
    files = {name: f"{name}_{RELEASED[task, calls]}.pth" for name in _TRAINED}
    # Asked for at the very end, but 5 GB later would be a bad time to say so.
    import_torch(Path(files[_TRAINED[0]]))
    downloads = downloads_folder()
    with _alone(downloads):
        lcm, lcm_license = _repository(LCM, conversion.needed_lcm(), downloads, fetching)
        clip, clip_license = _repository(CLIP, conversion.needed_clip(), downloads, fetching)
        trained = {name: downloads / "InterLCM" / file for name, file in files.items()}
        for path in trained.values():
            fetch(f"{release.rstrip('/')}/{path.name}", path, progress=fetching)
        origins = {
            **{name: {"origin": f"{LCM}/{name}", "license": lcm_license} for name in ("unet", "vae")},
            "clip_vision": {"origin": CLIP, "license": clip_license},
            **{name: {"origin": f"sen-mao/InterLCM v0.1.0, {files[name]}", "license": LICENSE} for name in _TRAINED},
        }
        sources = conversion.Sources(str(lcm), str(clip), **trained)
        options = {"num_network_calls": calls, "task": task, "origins": origins, "progress": converting}
        try:
            conversion.convert(sources, folder, **options)
        except WeightsError as error:
            raise InterLCMError(f"{error}\nDelete {downloads} and give the same command again.") from error
    return folder


def download_faces(
    folder: Path,
    *,
    release: str | None = None,
    fetching: Progress = lambda label, count, total: None,
) -> None:
    """Downloads RetinaFace and ParseNet (0.2 GB) into a model folder, as far as they aren't there.

    Args:
        folder: the model folder.
        release: a mirror of facexlib's two files.
        fetching: see `fetch.Progress`.

    Raises:
        InterLCMError: the files can't be had, or aren't whole; the model can be used all the same, and the message says
            what to do.
    """
    missing = {name: file for name, file in FACES.items() if not weights_file(folder, name).is_file()}
    if not missing:
        return
    addresses = {name: f"{FACEXLIB}/{file}" for name, file in missing.items()}
    if release:
        addresses = {name: f"{release.rstrip('/')}/{Path(file).name}" for name, file in missing.items()}
    origins = {name: {"origin": f"xinntao/facexlib {file}", "license": FACES_LICENSE} for name, file in missing.items()}
    downloads = downloads_folder()
    paths = {name: downloads / "facexlib" / Path(file).name for name, file in missing.items()}
    try:
        with _alone(downloads):
            for name, path in paths.items():
                fetch(addresses[name], path, progress=fetching)
            add_faces(folder, **paths, origins=origins)
    except (InterLCMError, OSError) as error:
        damaged = f"Delete {downloads / 'facexlib'}. " if isinstance(error, WeightsError) else ""
        names, files = (" and ".join(part) for part in (missing, addresses.values()))
        raise InterLCMError(
            f"{error}\n{damaged}{folder}: the model is ready, but without {names}, so it finds and pastes faces in "
            f"other ways than the release. Get {files} in any way, and say: interlcm add {folder} FILE FILE"
        ) from error


def download_upsampler(
    name: str,
    out: Path | None = None,
    *,
    release: str = UPSAMPLERS_RELEASE,
    fetching: Progress = lambda label, count, total: None,
) -> Path:
    """Downloads a released upsampler (5 to 67 MB) and converts it.

    Args:
        name: one of `UPSAMPLERS`.
        out: the folder to make; by default one of that name in `user_folders.upsamplers_folder`, where it is found by
            its name. Where that one is there already, nothing is downloaded.
        release: where the releases are, for a mirror.
        fetching: see `fetch.Progress`.

    Returns:
        The upsampler's folder.

    Raises:
        InterLCMError: no such upsampler was released, `out` exists, PyTorch isn't installed, another download is under
            way, or as `fetch.fetch`.
    """
    if name not in UPSAMPLERS:
        raise InterLCMError(f"upsampler {name!r} isn't released; choose one of {', '.join(UPSAMPLERS)}")
    folder = out or _in_home(upsamplers_folder) / name
    if out is None and folder.is_dir():
        return folder
    check_absent(folder)
    _check_address(release)
    file, sha256 = UPSAMPLERS[name]
    downloads = downloads_folder()
    path = downloads / "Real-ESRGAN" / Path(file).name
    import_torch(path)
    with _alone(downloads):
        fetch(f"{release.rstrip('/')}/{file}", path, sha256=sha256, progress=fetching)
        try:
            write_upsampler(read_upsampler(path), folder, f"xinntao/Real-ESRGAN {file}", LICENSE_OF_UPSAMPLERS)
        except WeightsError as error:
            raise InterLCMError(f"{error}\nDelete {path} and give the same command again.") from error
    return folder


def add_upsampler(file: Path, name: str | None = None, *, allow_nan: bool = False) -> Path:
    """Converts an upsampler's file, and puts it where it is found by its name.

    Args:
        file: a published .pth, or the same keys in .safetensors.
        name: what to call it; None is as `convert.upsampler.published_name`.
        allow_nan: take weights with NaN or infinity in them all the same.

    Returns:
        The upsampler's folder.

    Raises:
        InterLCMError: the name is taken or can't be one, or the user has no home folder.
        WeightsError: the file isn't an upsampler's, or isn't whole or finite.
    """
    name = published_name(file) if name is None else name
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise InterLCMError(
            f"{name!r} can't be an upsampler's name; give letters, digits, '.', '_' and '-' with --name"
        )
    folder = _in_home(upsamplers_folder) / name
    check_absent(folder)
    write_upsampler(read_upsampler(file), folder, file.name, "see its origin", allow_nan=allow_nan)
    return folder


def downloads_folder() -> Path:
    """Where downloaded files are kept, in `user_folders.cache_folder`.

    Raises:
        InterLCMError: the user has no home folder, and the environment names no other.
    """
    try:
        return cache_folder() / "downloads"
    except RuntimeError as error:
        raise InterLCMError(f"no home folder to keep downloads in; name one in {CACHE_VARIABLE}") from error


def _check_address(release: str) -> None:
    if not release.startswith(("https://", "http://")):
        raise InterLCMError(f"{release}: an address begins with https:// or http://")


def _in_home(place: Callable[[], Path]) -> Path:
    try:
        return place()
    except RuntimeError as error:
        raise InterLCMError(f"no home folder to keep models in; name one in {MODELS_VARIABLE}, or --out") from error


def _calls(task: str, num_network_calls: int | None) -> int:
    released = [calls for name, calls in RELEASED if name == task]
    if not released:
        raise InterLCMError(f"task {task!r} doesn't exist; choose one of {', '.join(sorted({t for t, _ in RELEASED}))}")
    if num_network_calls not in (None, *released):
        numbers = " or ".join(map(str, released))
        raise InterLCMError(f"{task} is released with {numbers} network calls, not {num_network_calls}")
    return num_network_calls or max(released)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Only one process at a time may add to a folder's files; a killed one is no hindrance."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / ".lock", timeout=0).acquire()
    except Timeout as error:
        raise InterLCMError(f"{folder}: another download is under way; wait for it to end") from error
    with lock:
        yield


def _repository(name: str, select: Select, downloads: Path, progress: Progress) -> tuple[Path, str]:
    """A hub repository's folder and its license."""
    unstated = f"see huggingface.co/{name}"
    with contextlib.suppress(InterLCMError):
        return cached(name, select), unstated
    repository = list_repository(name)
    repository.fetch(select, downloads / name, progress)
    return downloads / name, repository.license or unstated
