"""How a metric's scores are spread over the images: a drawing for the page."""

import html
import math
from collections.abc import Mapping, Sequence

import numpy as np

WIDTH, HEIGHT, MARGIN = 320, 150, 22
BINS = 24
# Okabe and Ito's colors, which people who see few colors can tell apart; dashes for those who see none.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("none", "6 3", "2 2", "8 3 2 3", "1 3", "10 2")


def histogram(title: str, values: Mapping[str, Sequence[float]]) -> str:
    """An SVG: a line for each row of the table, with its name; scores that aren't finite are left out.

    Returns:
        The SVG, or nothing where there is nothing to draw.
    """
    finite = {name: [value for value in own if math.isfinite(value)] for name, own in values.items()}
    everything = [value for own in finite.values() for value in own]
    if not everything:
        return ""
    low, high = min(everything), max(everything)
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts = {name: np.histogram(own, BINS, (low, high))[0] / max(1, len(own)) for name, own in finite.items()}
    tallest = max(float(count.max()) for count in counts.values())
    lines = [
        _line(count / tallest, COLORS[i % len(COLORS)], DASHES[i % len(DASHES)])
        for i, count in enumerate(counts.values())
    ]
    label = html.escape(f"{title}: from {low:.4g} to {high:.4g}", quote=True)
    base = HEIGHT - MARGIN
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f'<line x1="0" y1="{base}" x2="{WIDTH}" y2="{base}" stroke="#888"/>{"".join(lines)}'
        f'<text x="0" y="{HEIGHT - 6}">{low:.4g}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT - 6}" text-anchor="end">{high:.4g}</text></svg>'
    )


def legend(names: Sequence[str]) -> str:
    """The lines' names, in the order of the rows."""
    items = [
        f'<li><svg viewBox="0 0 30 8" width="30" height="8" aria-hidden="true"><line x1="0" y1="4" x2="30" y2="4" '
        f'stroke="{COLORS[i % len(COLORS)]}" stroke-width="2" stroke-dasharray="{DASHES[i % len(DASHES)]}"/></svg> '
        f"{html.escape(name)}</li>"
        for i, name in enumerate(names)
    ]
    return f'<ul class="legend">{"".join(items)}</ul>'


def _line(heights: np.ndarray, color: str, dash: str) -> str:
    """Steps over the bins, each 0 to 1 high."""
    base, width = HEIGHT - MARGIN, WIDTH / len(heights)
    steps = [f"V{base - height * (base - 4):.1f}H{(i + 1) * width:.1f}" for i, height in enumerate(heights)]
    style = f'fill="{color}" fill-opacity="0.12" stroke="{color}" stroke-width="1.6" stroke-dasharray="{dash}"'
    return f'<path d="M0 {base}{"".join(steps)}V{base}" {style}/>'
