"""Test sets whose low-quality faces are made once, so that all models are shown the same."""

import collections
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from interlcm_jax.data.degradation import DegradationConfig, Draws, degrade, draw
from interlcm_jax.data.grid import GridConfig
from interlcm_jax.data.images import check_header, read_face
from interlcm_jax.data.randomness import rng_for
from interlcm_jax.data.sources import HQ, LQ
from interlcm_jax.errors import InterLCMError
from interlcm_jax.files.atomic import whole_folder
from interlcm_jax.imaging.io import write_image

# Beside the images: how they were made.
ABOUT = "frozen.json"


def freeze(
    folder: Path,
    files: Sequence[Path],
    out: Path,
    size: int,
    config: DegradationConfig | GridConfig,
    seed: int,
    progress: Callable[[], object] = lambda: None,
) -> None:
    """Writes pairs as PNG, into `lq/` and `hq/` under their own names; the folder appears whole or not at all.

    Args:
        folder: where the files are; their names in it are kept.
        files: the good faces; the i-th is degraded by (seed, i) alone, or, by a grid, by (seed, i, their number).
        out: the folder to make; `sources.Pairs` opens it.
        size: of the pairs, pixels.
        config: the degradation.
        seed: from 0 to 2³² - 1.
        progress: called after every file.

    Raises:
        InterLCMError: a file can't be taken, two would get the same name, or the seed is out of range.
    """
    names = [file.relative_to(folder).with_suffix(".png") for file in files]
    counts = collections.Counter(names)
    if twice := [str(file) for file, name in zip(files, names, strict=True) if counts[name] > 1]:
        raise InterLCMError(f"{folder}: these would become pairs of the same name: {', '.join(twice)}")
    for file in files:
        check_header(file)
    with whole_folder(out, ABOUT) as temporary:
        for draws, file, name in zip(_draws(config, seed, len(files)), files, names, strict=True):
            hq = read_face(file, size)
            write_image(temporary / HQ / name, hq)
            write_image(temporary / LQ / name, degrade(hq, draws))
            progress()
        about = {"seed": seed, "size": size, "degradation": dataclasses.asdict(config)}
        (temporary / ABOUT).write_text(json.dumps(about, indent=2) + "\n")


def _draws(config: DegradationConfig | GridConfig, seed: int, count: int) -> Iterator[Draws]:
    if isinstance(config, GridConfig):
        return config.draws(seed, count)
    return (draw(config, rng_for(seed, "frozen", index, 0)) for index in range(count))
