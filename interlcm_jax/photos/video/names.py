"""Which files are videos, and what their results are called. Needs no PyAV."""

import glob
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from interlcm_jax.photos.names import name_results
from interlcm_jax.photos.plan import Job, check_not_replaced

# The suffix of each kind's result: the same container, or, where that doesn't hold H.264 and all that is copied,
# Matroska.
RESULTS = {".mp4": ".mp4", ".m4v": ".mp4", ".mov": ".mov", ".mkv": ".mkv", ".webm": ".webm", ".avi": ".mkv"}


def is_video(path: Path) -> bool:
    """Whether a file is called as videos are."""
    return path.suffix.lower() in RESULTS


def split_videos(inputs: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Videos among files and patterns, and the inputs that are left: images, folders, and patterns without videos."""
    videos: list[Path] = []
    others: list[Path] = []
    for path in inputs:
        matches = [path]
        if glob.has_magic(str(path)) and not os.path.lexists(path):
            found = sorted(Path(match) for match in glob.glob(str(path), recursive=True) if os.path.isfile(match))
            matches = found if any(map(is_video, found)) else matches
        for match in matches:
            (videos if is_video(match) and not os.path.isdir(match) else others).append(match)
    return videos, others


def plan_videos(videos: Sequence[Path], out: Path) -> list[Job]:
    """Pairs of video and result; named as `photos.names.name_results` names them.

    Raises:
        InterLCMError: a result would replace an input.
    """
    kinds: dict[str, list[tuple[Path, Path]]] = defaultdict(list)
    for path in videos:
        kinds[RESULTS[path.suffix.lower()]].append((path, Path(path.name)))
    names = {source: name for suffix, some in kinds.items() for source, name in name_results(some, suffix).items()}
    jobs = [Job(source, out / names[source]) for source in videos if source in names]
    check_not_replaced(jobs)
    return list(dict.fromkeys(jobs))
