"""`interlcm add`: adds the networks for whole photos, to a model folder or by themselves."""

import argparse
from pathlib import Path

from interlcm_jax.errors import InterLCMError

RETINAFACE = "detection_Resnet50_Final.pth or mobilenet0.25_Final.pth"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the subcommand and its options."""
    parser = commands.add_parser("add", help="add the networks for whole photos")
    add = parser.add_argument
    add("model", type=Path, nargs="?", metavar="DIR", help="the model folder; may be left out for the default model")
    add("files", nargs="*", type=Path, metavar="FILE", help="of RetinaFace or ParseNet; its keys say which")
    add("--retinaface", type=Path, metavar="FILE", help=f"{RETINAFACE}, to find faces")
    add("--parsenet", type=Path, metavar="FILE", help="parsing_parsenet.pth, to paste faces neatly")
    add("--upsampler", type=Path, metavar="FILE", help="Real-ESRGAN's .pth, to enlarge photos with any model")
    add("--name", metavar="NAME", help="of the upsampler (default: by its file, x4plus for RealESRGAN_x4plus.pth)")
    add("--allow-nan", action="store_true", help="accept weights with NaN or infinity in them")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Adds the networks; those that the folder has are replaced."""
    if arguments.name is not None and arguments.upsampler is None:
        raise InterLCMError("--name is an upsampler's; name its file with --upsampler")
    faces = arguments.model, arguments.retinaface, arguments.parsenet
    if arguments.upsampler is not None:
        _add_upsampler(arguments)
    if arguments.upsampler is None or any(part is not None for part in faces):
        _add_faces(arguments)
    return 0


def _add_faces(arguments: argparse.Namespace) -> None:
    from interlcm_jax.convert.optional import add_faces, face_network_in

    folder, unnamed = arguments.model, arguments.files
    if folder is None or folder.is_file():
        folder, unnamed = None, [*filter(None, [folder]), *unnamed]
    files = {name: path for name in ("retinaface", "parsenet") if (path := getattr(arguments, name)) is not None}
    for path in unnamed:
        name = face_network_in(path)
        if name in files:
            raise InterLCMError(f"{files[name]} and {path}: two files of {name} given; name one")
        files[name] = path
    if not files:
        raise InterLCMError("nothing to add: name a file of RetinaFace or ParseNet, or an upsampler's with --upsampler")
    folder = folder or _default_folder()
    add_faces(folder, **files, allow_nan=arguments.allow_nan)
    print(f"{folder}: now with {' and '.join(files)}")


def _default_folder() -> Path:
    from interlcm_jax.default_model import SMALL, default_model

    if (folder := default_model()) == SMALL:
        raise InterLCMError("name a model folder before the file: the small model of the package stays as it is")
    return folder


def _add_upsampler(arguments: argparse.Namespace) -> None:
    from interlcm_jax.convert.released import add_upsampler

    folder = add_upsampler(arguments.upsampler, arguments.name, allow_nan=arguments.allow_nan)
    print(f"{folder}: ready for interlcm restore --background-upsampler {folder.name}")
