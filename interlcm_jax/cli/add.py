"""`interlcm add`: adds the networks for whole photos to a model folder."""

import argparse
from pathlib import Path

from interlcm_jax.errors import InterLCMError


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the subcommand and its options."""
    parser = commands.add_parser("add", help="add the networks for whole photos to a model folder")
    parser.add_argument("model", type=Path, metavar="DIR", help="the model folder")
    parser.add_argument("--retinaface", type=Path, metavar="FILE", help="detection_Resnet50_Final.pth, to find faces")
    parser.add_argument("--parsenet", type=Path, metavar="FILE", help="parsing_parsenet.pth, to paste faces neatly")
    parser.add_argument("--allow-nan", action="store_true", help="accept weights with NaN or infinity in them")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Adds the networks; those that the folder has are replaced."""
    if arguments.retinaface is None and arguments.parsenet is None:
        raise InterLCMError("nothing to add: name --retinaface, --parsenet or both")
    from interlcm_jax.convert.optional import add_faces

    files = {"retinaface": arguments.retinaface, "parsenet": arguments.parsenet}
    add_faces(arguments.model, **files, allow_nan=arguments.allow_nan)
    print(f"{arguments.model}: now with {' and '.join(name for name, path in files.items() if path is not None)}")
    return 0
