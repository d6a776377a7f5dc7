"""Pictures for people: an image as it came, restored and as it should be, side by side, with its eyes and mouth."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from interlcm_jax.errors import InterLCMError
from interlcm_jax.evaluation.compare import Comparison
from interlcm_jax.evaluation.metric import Metric
from interlcm_jax.faces.align import TEMPLATE, TEMPLATE_SIZE
from interlcm_jax.imaging.io import read_image

TILE = 256  # pixels, the width of a column
GAP = 4
QUALITY = 82
GRAY = (200, 200, 200)
_ASPECT = 2.5  # of the zooms
# Widths of the zooms, pixels of an aligned face of `TEMPLATE_SIZE`.
_EYES_WIDTH, _MOUTH_WIDTH = 240, 200

Box = tuple[float, float, float, float]


def zooms(size: int) -> tuple[Box, Box]:
    """Where eyes and mouth are in a square aligned face: left, top, right and bottom, pixels."""
    left_eye, right_eye, _, left_mouth, right_mouth = TEMPLATE

    def box(center: np.ndarray, width: float) -> Box:
        x, y, half = *center, width / 2
        edges = (x - half, y - half / _ASPECT, x + half, y + half / _ASPECT)
        return tuple(float(edge) * size / TEMPLATE_SIZE for edge in edges)

    return box((left_eye + right_eye) / 2, _EYES_WIDTH), box((left_mouth + right_mouth) / 2, _MOUTH_WIDTH)


def choose(comparison: Comparison, metrics: Sequence[Metric], most: int) -> list[str]:
    """Names of images to show, of each metric and method in turn the worst, the best and the median, and so on."""
    ranked = []
    for metric in metrics:
        for row in comparison.methods:
            images = row.scores[metric.name].images
            order = sorted((name for name in row.names if name in images), key=lambda name: (images[name], name))
            if order:
                ranked.append(order if metric.better == "higher" else order[::-1])
    if not ranked:
        ranked = [sorted(comparison.methods[0].names)]
    chosen: dict[str, None] = {}
    for rank in range(max(map(len, ranked))):
        for order in ranked:
            middle = len(order) // 2
            for place in (rank, len(order) - 1 - rank, middle + rank):
                if 0 <= place < len(order) and len(chosen) < most:
                    chosen.setdefault(order[place])
    return list(chosen)


def sheet(files: Sequence[Path | None]) -> Image.Image:
    """The images of one face side by side, and under each its eyes and its mouth, if it is square.

    What isn't there, or can't be read, is a gray tile.
    """
    zoom = round(TILE / _ASPECT)
    rows = (0, TILE + GAP, TILE + zoom + 2 * GAP)
    picture = Image.new("RGB", (len(files) * (TILE + GAP) - GAP, rows[-1] + zoom), "white")
    for column, file in enumerate(files):
        left = column * (TILE + GAP)
        try:
            if file is None:
                raise InterLCMError("no such image")
            image = Image.fromarray(read_image(file))
        except InterLCMError:
            picture.paste(GRAY, (left, 0, left + TILE, picture.height))
            continue
        whole = image.copy()
        whole.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
        if image.width < TILE and image.height < TILE:
            whole = _resized(image, TILE / max(image.size))
        picture.paste(whole, (left + (TILE - whole.width) // 2, (TILE - whole.height) // 2))
        if image.width == image.height:
            for top, box in zip(rows[1:], zooms(image.width), strict=True):
                picture.paste(image.resize((TILE, zoom), Image.Resampling.BICUBIC, box=box), (left, top))
    return picture


def _resized(image: Image.Image, scale: float) -> Image.Image:
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.BICUBIC)


def data_url(picture: Image.Image) -> str:
    """A picture as a JPEG within a page."""
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"


def columns(comparison: Comparison, hq: Mapping[str, Path] | None) -> list[tuple[str, Mapping[str, Path]]]:
    """What is shown side by side: low quality first, the originals last."""
    shown = [row.subject for row in comparison.rows if row.subject.role != "hq"]
    first = sorted(shown, key=lambda subject: subject.role == "method")
    return [(subject.name, subject.files) for subject in first] + ([("HQ", hq)] if hq else [])
