"""`interlcm dataset`: makes a training set, or a frozen test set, from a folder of faces."""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from interlcm_jax.errors import InterLCMError, printable

DEGRADATIONS = ("release", "release-256", "harsh", "gray", "strokes", "difface")


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the subcommand and its options."""
    parser = commands.add_parser("dataset", help="make a training set, or a frozen test set, from a folder of faces")
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="aligned faces; inner folders are searched too")
    add("-o", "--out", required=True, type=Path, metavar="OUT", help="the folder to create")
    add("--size", type=int, default=512, metavar="PIXELS", help="faces of other sizes are resized (default: 512)")
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--exclude-last", type=int, metavar="N", help="leave out the last N faces by name")
    part.add_argument("--only-last", type=int, metavar="N", help="take only the last N faces by name")
    add("--frozen", action="store_true", help="make a test set: pairs of low and high quality")
    add("--degradation", choices=DEGRADATIONS, default="release", help="of a frozen set (default: release)")
    add("--seed", type=int, help="of the degradation (default: 0; 10000 for difface, as in its release)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Makes the set; files that were left out are named at the end and make the exit code 1."""
    from interlcm_jax.data.frozen import ABOUT
    from interlcm_jax.data.images import MINIMUM_SIZE, part
    from interlcm_jax.data.sources import INFO
    from interlcm_jax.files.atomic import check_absent
    from interlcm_jax.imaging.listing import find_images

    if arguments.size < MINIMUM_SIZE:
        raise InterLCMError(f"--size is {arguments.size}, but must be at least {MINIMUM_SIZE}")
    check_absent(arguments.out, ABOUT if arguments.frozen else INFO)
    files = part(find_images(arguments.folder).images, arguments.exclude_last, arguments.only_last)
    with tqdm(total=len(files), unit="face", desc="freezing" if arguments.frozen else "building") as bar:
        return (_freeze if arguments.frozen else _build)(arguments, files, bar)


def _build(arguments: argparse.Namespace, files: list[Path], bar: tqdm) -> int:
    try:
        from interlcm_jax.data.faces_builder import build_faces

        bad = build_faces(arguments.folder, files, arguments.out, arguments.size, bar.update)
    except ModuleNotFoundError as error:
        raise InterLCMError(f"{error.name} is missing; pip install 'interlcm-jax[train]' brings it") from error
    bar.close()
    for line in bad:
        print(printable(f"left out: {line}"), file=sys.stderr)
    left_out = f"; {len(bad)} left out, named above" if bad else ""
    print(printable(f"{arguments.out}: {len(files) - len(bad)} faces of {arguments.size} pixels{left_out}"))
    return 1 if bad else 0


def _freeze(arguments: argparse.Namespace, files: list[Path], bar: tqdm) -> int:
    from interlcm_jax.data.degradation import DegradationConfig
    from interlcm_jax.data.frozen import freeze
    from interlcm_jax.data.grid import SEED, GridConfig

    grid = arguments.degradation == "difface"
    config = GridConfig() if grid else DegradationConfig.named(arguments.degradation)
    seed = arguments.seed if arguments.seed is not None else SEED if grid else 0
    freeze(arguments.folder, files, arguments.out, arguments.size, config, seed, bar.update)
    bar.close()
    print(printable(f"{arguments.out}: {len(files)} pairs of {arguments.size} pixels, lq/ and hq/"))
    return 0
