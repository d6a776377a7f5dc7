"""Faces cut out of photos, aligned as FFHQ's: to train on, to test on, or to restore one by one."""

from pathlib import Path

import numpy as np

from interlcm_jax.errors import InterLCMError
from interlcm_jax.faces.align import align
from interlcm_jax.faces.detect import Detector
from interlcm_jax.faces.select import FaceChoice, find_candidates, select_faces
from interlcm_jax.imaging.io import read_photo, write_photo
from interlcm_jax.photos.plan import Job

ALL_FACES = FaceChoice()


def cut_faces(
    job: Job, size: int, detector: Detector, choice: FaceChoice = ALL_FACES, *, min_size: float = 0
) -> list[Path]:
    """Writes the faces of one photo, the largest first.

    Args:
        job: the photo, and the file of its first face; the others are NAME.2, NAME.3 and so on.
        size: of the aligned faces, pixels.
        detector: finds the faces.
        choice: which of them are cut out.
        min_size: smaller faces are left out: pixels of the photo that the aligned square covers, along one side.

    Returns:
        The files that were written.

    Raises:
        InterLCMError: the photo can't be read, it lacks a face that `choice.faces` names, or a face can't be written.
    """
    pixels = read_photo(job.source).pixels
    try:
        chosen = select_faces(find_candidates(pixels, detector, choice), pixels, choice.faces)
    except InterLCMError as error:
        raise InterLCMError(f"{job.source}: {error}") from error
    cut = [align(pixels, face.landmarks, size) for face in chosen]
    sides = [size / np.linalg.det(matrix[:, :2]) ** 0.5 for _, matrix in cut]
    order = [i for i in np.argsort(sides, kind="stable")[::-1] if sides[i] >= min_size]
    files = []
    for number, i in enumerate(order, 1):
        name = job.target.name if number == 1 else f"{job.target.stem}.{number}{job.target.suffix}"
        files.append(job.target.with_name(name))
        write_photo(files[-1], cut[i][0])
    return files
