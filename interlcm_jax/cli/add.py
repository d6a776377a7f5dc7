"""`interlcm add`: adds the networks for whole photos to a model folder."""

import argparse
from pathlib import Path

from interlcm_jax.errors import InterLCMError

RETINAFACE = "detection_Resnet50_Final.pth or mobilenet0.25_Final.pth"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the subcommand and its options."""
    parser = commands.add_parser("add", help="add the networks for whole photos to a model folder")
    add = parser.add_argument
    add("model", type=Path, metavar="DIR", help="the model folder; may be left out for the default model")
    add("files", nargs="*", type=Path, metavar="FILE", help="of any of these networks; its keys say which")
    add("--retinaface", type=Path, metavar="FILE", help=f"{RETINAFACE}, to find faces")
    add("--parsenet", type=Path, metavar="FILE", help="parsing_parsenet.pth, to paste faces neatly")
    add("--allow-nan", action="store_true", help="accept weights with NaN or infinity in them")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Adds the networks; those that the folder has are replaced."""
    from interlcm_jax.convert.optional import add_faces, face_network_in

    folder, unnamed = arguments.model, arguments.files
    if folder.is_file():
        folder, unnamed = _default_folder(), [folder, *unnamed]
    files = {name: path for name in ("retinaface", "parsenet") if (path := getattr(arguments, name)) is not None}
    for path in unnamed:
        name = face_network_in(path)
        if name in files:
            raise InterLCMError(f"{files[name]} and {path}: two files of {name} given; name one")
        files[name] = path
    if not files:
        raise InterLCMError("nothing to add: name a file of RetinaFace or ParseNet")
    add_faces(folder, **files, allow_nan=arguments.allow_nan)
    print(f"{folder}: now with {' and '.join(files)}")
    return 0


def _default_folder() -> Path:
    from interlcm_jax.default_model import SMALL, default_model

    if (folder := default_model()) == SMALL:
        raise InterLCMError("name a model folder before the file: the small model of the package stays as it is")
    return folder
