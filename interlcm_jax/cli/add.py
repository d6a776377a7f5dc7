"""`interlcm add`: adds the networks for whole photos, to a model folder or by themselves."""

import argparse
from pathlib import Path

from interlcm_jax.errors import InterLCMError


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the subcommand and its options."""
    parser = commands.add_parser("add", help="add the networks for whole photos")
    add = parser.add_argument
    add("model", type=Path, nargs="?", metavar="DIR", help="the model folder, for --retinaface and --parsenet")
    add("--retinaface", type=Path, metavar="FILE", help="detection_Resnet50_Final.pth, to find faces")
    add("--parsenet", type=Path, metavar="FILE", help="parsing_parsenet.pth, to paste faces neatly")
    add("--upsampler", type=Path, metavar="FILE", help="Real-ESRGAN's .pth, to enlarge photos with any model")
    add("--name", metavar="NAME", help="of the upsampler (default: by its file, x4plus for RealESRGAN_x4plus.pth)")
    add("--allow-nan", action="store_true", help="accept weights with NaN or infinity in them")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Adds the networks; those that the folder has are replaced."""
    faces = arguments.retinaface is not None or arguments.parsenet is not None
    if not faces and arguments.upsampler is None:
        raise InterLCMError("nothing to add: name --retinaface, --parsenet or --upsampler")
    if faces != (arguments.model is not None):
        raise InterLCMError("--retinaface and --parsenet need a model folder, DIR; --upsampler alone needs none")
    if arguments.name is not None and arguments.upsampler is None:
        raise InterLCMError("--name is an upsampler's; name its file with --upsampler")
    if arguments.upsampler is not None:
        _add_upsampler(arguments)
    if faces:
        _add_faces(arguments)
    return 0


def _add_faces(arguments: argparse.Namespace) -> None:
    from interlcm_jax.convert.optional import add_faces

    files = {"retinaface": arguments.retinaface, "parsenet": arguments.parsenet}
    add_faces(arguments.model, **files, allow_nan=arguments.allow_nan)
    print(f"{arguments.model}: now with {' and '.join(name for name, path in files.items() if path is not None)}")


def _add_upsampler(arguments: argparse.Namespace) -> None:
    from interlcm_jax.convert.released import add_upsampler

    folder = add_upsampler(arguments.upsampler, arguments.name, allow_nan=arguments.allow_nan)
    print(f"{folder}: ready for interlcm restore --background-upsampler {folder.name}")
