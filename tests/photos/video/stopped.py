"""Restores a video and is killed on the way: `python -m tests.photos.video.stopped IN OUT POINT DONE`."""

import os
import signal
import sys
from pathlib import Path

import numpy as np

from interlcm_jax.photos.image import RestoreOptions
from interlcm_jax.photos.video import found, join, restore
from tests.photos.video.made import Halving, detector


def main(source: str, target: str, point: str, done: str) -> None:
    """Restores; kills itself where `progress` says so, or while the result is written (POINT is join)."""
    found.SEGMENT = restore.SEGMENT = 8

    def progress(what, count, total):
        if (what, count) == (point, int(done)):
            os.kill(os.getpid(), signal.SIGKILL)

    if point == "join":
        whole = join.Packets.read

        def read(path):
            if path.name == f"segment-{int(done):06d}.npz":
                os.kill(os.getpid(), signal.SIGKILL)
            return whole(path)

        join.Packets.read = read
    options = RestoreOptions(upscale=1, leave_sharp="off")
    restore.restore_video(
        Halving(),
        Path(source),
        Path(target),
        options,
        detector=detector,
        parser=lambda faces: np.ones(faces.shape[:3]),
        batch_size=2,
        progress=progress,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
