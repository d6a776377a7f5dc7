"""`interlcm restore --list-faces`: which faces photos have, and their numbers, without restoring them."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from interlcm_jax.errors import InterLCMError, printable
from interlcm_jax.photos.plan import NUMBERED_FACES, Job

if TYPE_CHECKING:
    from interlcm_jax.faces.detect import Face
    from interlcm_jax.faces.select import FaceChoice


def list_faces(arguments: argparse.Namespace, jobs: Sequence[Job], choice: "FaceChoice") -> int:
    """Prints the faces of every photo, and writes pictures with their numbers into a folder of its own.

    Args:
        arguments: those of `interlcm restore`.
        jobs: the photos, and where their results would go.
        choice: which faces; `choice.faces` has no say.

    Returns:
        The exit code: 1 if a photo couldn't be read.
    """
    from interlcm_jax.default_model import find_model
    from interlcm_jax.faces.load import load_detector
    from interlcm_jax.model_folder import read_config
    from interlcm_jax.photos.files import make_folder
    from interlcm_jax.photos.numbered import number_faces

    folder = find_model(arguments.model, arguments.task)
    size, detector = read_config(folder).image_size, load_detector(folder, arguments.detector)
    pictures = arguments.out / NUMBERED_FACES
    make_folder(pictures)
    photos, failed = [], []
    with logging_redirect_tqdm():
        for job in tqdm(jobs, unit="photo"):
            # Not where results go: --skip-existing would take the picture for one.
            job = job._replace(target=pictures / job.target.relative_to(arguments.out))
            try:
                photos.append(_entry(job, number_faces(job, size, choice, detector)))
            except InterLCMError as error:
                failed.append({"input": str(job.source), "error": str(error)})
    if arguments.json:
        print(json.dumps({"photos": photos, "failed": failed}, indent=2))
    else:
        print(printable("\n".join([*map(_lines, photos), f"pictures with the faces' numbers are in {pictures}"])))
    for one in failed:
        print(printable(f"failed: {one['error']}"), file=sys.stderr)
    return 1 if failed else 0


def _entry(job: Job, faces: "Sequence[Face]") -> dict[str, Any]:
    """A photo for scripts; boxes are left, top, right and bottom, in pixels of the photo."""
    return {
        "input": str(job.source),
        "output": str(job.target) if faces else None,
        "faces": [
            {
                "index": index,
                "box": [round(float(edge), 1) for edge in face.box],
                "size": round(face.size, 1),
                "score": round(face.score, 4),
            }
            for index, face in enumerate(faces)
        ],
    }


def _lines(photo: dict[str, Any]) -> str:
    """A photo for people."""
    faces = photo["faces"]
    lines = [f"{photo['input']}: {len(faces) or 'no'} face{'' if len(faces) == 1 else 's'}"]
    for face in faces:
        left, top, right, bottom = map(round, face["box"])
        box = f"from ({left}, {top}) to ({right}, {bottom})"
        lines.append(f"  {face['index']}: {box}, {face['size']:.0f} pixels, score {face['score']:.3f}")
    return "\n".join(lines)
