"""The verdict for people and for scripts: lines of a table, JSON, and a page with a plot and the two pictures."""

import base64
import dataclasses
import hashlib
import html
import io
import json
import math
import platform
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata, resources
from pathlib import Path
from string import Template
from typing import Any

import jax
import numpy as np
from PIL import Image

from interlcm_jax.files.atomic import whole_folder
from interlcm_jax.parity.ladder import Rung
from interlcm_jax.parity.model import Step, level_differences

PACKAGES = ("interlcm-jax", "jax", "jaxlib", "flax", "torch", "diffusers", "transformers")
COLUMNS = ("error, rms", "new, rms", "error, max", "new, max", "PyTorch's own")
HEAD = f"{'':58}" + "".join(f"{column:>15}" for column in COLUMNS)
# The plot: width, height and margins in pixels, and the powers of ten it spans.
_WIDTH, _HEIGHT, _LEFT, _LOWEST, _HIGHEST = 1100, 300, 50, -9, 0
# Differences of pictures are shown this many times as strong.
_AMPLIFIED = 32


@dataclasses.dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        settings: what was compared, by name: model, dtype, precision, tolerance and the like.
        steps: the parts, in order.
    """

    settings: dict[str, Any]
    steps: Sequence[Step]

    @property
    def rungs(self) -> list[Rung]:
        """All comparisons, in order."""
        return [rung for step in self.steps for rung in step.rungs]

    @property
    def fault(self) -> str | None:
        """The first thing that is wrong, in words; None if nothing is."""
        return next((step.fault for step in self.steps if step.fault), None)

    @property
    def verdict(self) -> str:
        """One sentence."""
        return f"First fault: {self.fault}." if self.fault else "JAX and PyTorch agree."

    @property
    def summary(self) -> str:
        """The verdict, after what there is to say of the restoration as a whole."""
        lines = []
        if (pictures := self.steps[-1].pictures) is not None:
            largest, share = level_differences(pictures)
            torch, ours = self.rungs[-1].seconds
            lines.append(f"restored: at most {largest} of 255 levels apart, at {share:.2%} of the values")
            lines.append(f"seconds: PyTorch {torch:.1f}, JAX {ours:.1f}, each at its second run")
        return "\n".join([*lines, self.verdict])

    def to_json(self) -> dict[str, Any]:
        """Everything but the pictures."""
        found = {"verdict": self.verdict, "fault": self.fault, "settings": self.settings, "versions": versions()}
        if (pictures := self.steps[-1].pictures) is not None:
            largest, share = level_differences(pictures)
            found["levels"] = {"largest": largest, "share": share}
        rungs = [{**dataclasses.asdict(rung), "passes": rung.passes} for rung in self.rungs]
        # JSON has no word for NaN or infinity.
        return {**found, "rungs": json.loads(json.dumps(rungs), parse_constant=lambda _: None)}

    def page(self) -> str:
        """One HTML page that needs nothing else."""
        template = resources.files("interlcm_jax.parity").joinpath("page.html").read_text(encoding="utf-8")
        facts = {**self.settings, **versions()}
        lines = (
            f'<tr{"" if rung.passes else " class=wrong"}><th scope="row">{html.escape(rung.name)}</th>'
            + "".join(f"<td>{cell}</td>" for cell in _cells(rung))
            + "</tr>"
            for rung in self.rungs
        )
        return Template(template).substitute(
            verdict=html.escape(self.verdict),
            facts="".join(f"<li>{html.escape(f'{key}: {value}')}</li>" for key, value in facts.items()),
            plot=_plot(self.rungs),
            pictures=_pictures(self.steps[-1].pictures),
            head="".join(f'<th scope="col">{column}</th>' for column in ("", *COLUMNS)),
            lines="".join(lines),
        )

    def save(self, folder: Path) -> None:
        """Writes `report.json` and `report.html`; the folder appears whole or not at all."""
        with whole_folder(folder) as temporary:
            (temporary / "report.json").write_text(json.dumps(self.to_json(), indent=2) + "\n")
            (temporary / "report.html").write_text(self.page(), encoding="utf-8")


def line(rung: Rung) -> str:
    """One line of the table in a terminal."""
    mark = "" if rung.passes else "  <- over its tolerance"
    return f"{rung.name:58}" + "".join(f"{cell:>15}" for cell in _cells(rung)) + mark


def versions() -> dict[str, str]:
    """What computed here: packages, Python, the devices of JAX."""
    devices = {device.device_kind for device in jax.devices()}
    found = {package: metadata.version(package) for package in PACKAGES}
    return {**found, "python": platform.python_version(), "devices": f"{jax.device_count()} x {', '.join(devices)}"}


def hashes(files: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Name and SHA-256 of each file."""
    for path in files:
        with path.open("rb") as file:
            yield path.name, hashlib.file_digest(file, "sha256").hexdigest()


def _cells(rung: Rung) -> Iterator[str]:
    new, own = rung.new, rung.own
    values = (
        rung.error.rms,
        None if new is None else new.rms,
        rung.error.largest,
        None if new is None else new.largest,
        None if own is None else own.rms,
    )
    yield from ("" if value is None else f"{value:.1e}" for value in values)


def _plot(rungs: Sequence[Rung]) -> str:
    """Errors along the depth as SVG, on a logarithmic scale."""
    step = (_WIDTH - _LEFT) / max(len(rungs), 1)

    def height(value: float) -> float:
        power = math.log10(value) if 0 < value < math.inf else (_LOWEST if value == 0 else _HIGHEST)
        return _HEIGHT * (_HIGHEST - min(max(power, _LOWEST), _HIGHEST)) / (_HIGHEST - _LOWEST)

    def dots(name: str, values: Sequence[float | None]) -> str:
        return "".join(
            f'<circle class="{name}" cx="{_LEFT + (i + 0.5) * step:.1f}" cy="{height(value):.1f}" r="3">'
            f"<title>{html.escape(rung.name)}: {value:.1e}</title></circle>"
            for i, (rung, value) in enumerate(zip(rungs, values, strict=True))
            if value is not None
        )

    grid = "".join(
        f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{height(10.0**power):.1f}" y2="{height(10.0**power):.1f}"/>'
        f'<text x="{_LEFT - 6}" y="{height(10.0**power) + 4:.1f}">1e{power}</text>'
        for power in range(_LOWEST, _HIGHEST + 1, 3)
    )
    parts = [rung.name.split(" ")[0].partition(".")[0] for rung in rungs]
    begins = [i for i, part in enumerate(parts) if i == 0 or parts[i - 1] != part]
    # The sampler's few steps at the end share their label with what the first network takes.
    labels = "".join(
        f'<line x1="{_LEFT + i * step:.1f}" x2="{_LEFT + i * step:.1f}" y1="0" y2="{_HEIGHT}"/>'
        f'<text class="part" x="{_LEFT + i * step + 4:.1f}" y="{12 if row % 2 else 26}">{html.escape(parts[i])}</text>'
        for row, i in enumerate(begins)
        if parts[i] not in ("latents", "restored")
    )
    errors = dots("error", [rung.error.rms for rung in rungs])
    new = dots("new", [None if rung.new is None else rung.new.rms for rung in rungs])
    return f'<svg viewBox="0 -8 {_WIDTH} {_HEIGHT + 16}" role="img">{grid}{labels}{errors}{new}</svg>'


def _pictures(pictures: np.ndarray | None) -> str:
    if pictures is None:
        return ""
    theirs, ours = (picture[0].astype(np.int16) for picture in pictures)
    apart = np.clip(128 + _AMPLIFIED * (ours - theirs), 0, 255)
    largest, share = level_differences(pictures)
    titles = ("PyTorch", "JAX", f"JAX less PyTorch, {_AMPLIFIED} times as strong: at most {largest} of 255 levels")
    figures = "".join(
        f'<figure><img src="{_data_url(image.astype(np.uint8))}" alt=""><figcaption>{title}</figcaption></figure>'
        for image, title in zip((theirs, ours, apart), titles, strict=True)
    )
    return f"<h2>Restored</h2><p>{share:.2%} of the values differ.</p><div class=pictures>{figures}</div>"


def _data_url(image: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
