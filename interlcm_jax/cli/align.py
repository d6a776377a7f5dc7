"""`interlcm align`: cuts the faces out of photos, aligned as FFHQ's, into a folder to train or test on."""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from interlcm_jax.cli.face_options import add_face_options, face_choice
from interlcm_jax.errors import InterLCMError
from interlcm_jax.photos.plan import plan


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the subcommand and its options."""
    parser = commands.add_parser("align", help="cut the faces out of photos, aligned, to train or test on")
    add = parser.add_argument
    add("inputs", nargs="+", type=Path, metavar="INPUT", help="image files, folders, or quoted patterns")
    add("-o", "--out", required=True, type=Path, metavar="OUT", help="folder for the faces, PNG")
    add("--size", type=int, default=512, metavar="PIXELS", help="of the aligned faces (default: 512)")
    add("--min-size", type=float, default=0, metavar="PIXELS", help="leave out faces that are smaller in their photo")
    add_face_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Cuts the faces out; a bad file costs that file only, is named at the end and makes the exit code 1."""
    from interlcm_jax.data.images import MINIMUM_SIZE
    from interlcm_jax.faces.mtcnn_detector import MTCNN
    from interlcm_jax.faces.select import FaceChoice
    from interlcm_jax.photos.cut import cut_faces
    from interlcm_jax.photos.files import make_folder

    if arguments.size < MINIMUM_SIZE:
        raise InterLCMError(f"--size is {arguments.size}, but must be at least {MINIMUM_SIZE}")
    choice = FaceChoice(**face_choice(arguments))
    jobs = plan(arguments.inputs, arguments.out)
    make_folder(arguments.out)
    detector = MTCNN()
    faces, none, failed = 0, [], []
    for job in tqdm(jobs, unit="photo"):
        try:
            files = cut_faces(job, arguments.size, detector, choice, min_size=arguments.min_size)
        except InterLCMError as error:
            failed.append(str(error))
            continue
        faces += len(files)
        if not files:
            none.append(job.source)
    print(f"cut {faces} faces of {arguments.size} pixels out of {len(jobs)} photos into {arguments.out}")
    if none:
        wanted = f"face of {arguments.min_size:g} pixels or more" if arguments.min_size else "face"
        print(f"found no {wanted} in {len(none)}:")
        print("\n".join(f"  {source}" for source in none))
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    return 1 if failed else 0
