"""`interlcm restore --aligned` as its tests call it: faces to restore, the command, and what it left."""

import numpy as np
from PIL import Image

from interlcm_jax import InterLCM
from interlcm_jax.cli.main import main
from interlcm_jax.imaging.io import fit_square, read_image
from tests.miniature import miniature_model

SIZE = 64


def face(path, seed=0, size=(SIZE, SIZE), mode="RGB"):
    """Saves a picture of random colors, and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert(mode).save(path)
    return path


def restore(model, *arguments):
    """Runs the command; its exit code."""
    return main(["restore", "--aligned", "--gray", "color", "--model", str(model), *map(str, arguments)])


def names(folder):
    """All files below, hidden ones included."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def assert_restored(source, target, **options):
    """The picture is what the model makes of the input, but for rounding: the command runs on all eight devices."""
    pixels = fit_square(read_image(source), SIZE)[None]
    expected = np.asarray(miniature_model().restore(pixels, **options))[0]
    found = np.asarray(Image.open(target).convert("RGB"), int)
    assert np.abs(found - expected).max() <= 1, source


def answering(monkeypatch, answer):
    """Every model's `restore_all` gives what `answer` gives for each face; the options it was given."""
    seen = []

    def restore_all(self, faces, **options):
        seen.append(options)
        return map(answer, faces)

    monkeypatch.setattr(InterLCM, "restore_all", restore_all)
    return seen
