"""The report as one HTML page that needs nothing else: tables, histograms, and sheets of pictures to sort."""

import html
import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template

from interlcm_jax.evaluation.histogram import histogram, legend
from interlcm_jax.evaluation.metric import Metric
from interlcm_jax.evaluation.report import ARROWS, Report, cell, differences
from interlcm_jax.evaluation.sheets import choose, columns, data_url, sheet

# Most lines of what is wrong or odd; scores.json has all of them.
_LINES = 50


def render(report: Report, hq: Mapping[str, Path] | None, most_sheets: int) -> str:
    """The page.

    Args:
        report: what it shows.
        hq: the originals by name, or None.
        most_sheets: images that are shown at most.
    """
    template = resources.files("interlcm_jax.evaluation").joinpath("page.html").read_text(encoding="utf-8")
    names = ", ".join(row.subject.name for row in report.comparison.methods)
    return Template(template).substitute(
        title=_text(f"{names}: {report.protocol.name}"),
        heading="".join(f"<p>{_text(line)}</p>" for line in report.heading) + _restoration(report),
        table=_table(report),
        differences=_differences(report),
        problems=_problems(report),
        histograms=_histograms(report),
        sheets=_sheets(report, hq, most_sheets),
        protocol=_protocol(report.metrics),
    )


def _text(text: object) -> str:
    return html.escape(str(text))


def _line(kind: str, cells: Sequence[str], style: str = "") -> str:
    """A line of a table; its first cell names it."""
    scope = "col" if kind == "th" else "row"
    first, *rest = cells
    others = "".join(f'<th scope="col">{x}</th>' if kind == "th" else f"<td>{x}</td>" for x in rest)
    return f'<tr{style}><th scope="{scope}">{first}</th>{others}</tr>'


def _frame(head: str, lines: Sequence[str], words: bool = False) -> str:
    style = ' class="words"' if words else ""
    body = "".join(lines)
    return f'<div class="scroll"><table{style}><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def _table(report: Report) -> str:
    titles = [f"{_text(metric.title)} {ARROWS[metric.better]}" for metric in report.metrics]
    units = [f"<br><small>{_text(metric.unit)}</small>" if metric.unit else "" for metric in report.metrics]
    head = _line("th", ["", "images", *(title + unit for title, unit in zip(titles, units, strict=True))])
    best = {metric.name: _best(report, metric) for metric in report.metrics}
    lines = []
    for row in report.comparison.rows:
        cells = []
        for metric in report.metrics:
            score = row.scores[metric.name]
            text = _text(cell(metric, score))
            if score.value is None:
                text = f'<span class="why">{text if score.why == "is the reference" else _text(score.why)}</span>'
            elif row.subject.name == best[metric.name]:
                text = f"<strong>{text}</strong>"
            if score.interval:
                text += "<small>" + " to ".join(f"{end:.{metric.digits}f}" for end in score.interval) + "</small>"
            if score.value is not None and score.count != len(row.names):
                text += f"<small>of {score.count}</small>"
            cells.append(text)
        lines.append(_line("td", [_text(row.subject.name), str(len(row.names)), *cells]))
    for name, numbers in report.published.rows.items():
        cells = [_text(numbers.get(metric.name, "")) for metric in report.metrics]
        lines.append(_line("td", [_text(name), str(report.published.count), *cells], ' class="published"'))
    notes = ["Small figures: the mean's 95 % interval by bootstrap over the images."]
    if report.published.rows:
        notes += [f"In italics: as published. {source}" for source in report.published.sources]
    notes += [*report.comparison.notes, *report.published.notes, *report.notes]
    return _frame(head, lines) + "".join(f"<p>{_text(note)}</p>" for note in notes)


def _best(report: Report, metric: Metric) -> str | None:
    """The best of several methods."""
    found = {row.subject.name: row.scores[metric.name].value for row in report.comparison.methods}
    known = {name: value for name, value in found.items() if value is not None}
    if len(known) < 2:
        return None
    return (max if metric.better == "higher" else min)(known, key=lambda name: known[name])


def _differences(report: Report) -> str:
    found = differences(report.metrics, report.comparison)
    if not found:
        return ""
    first, *others = [row.subject.name for row in report.comparison.methods]
    metrics = [metric for metric in report.metrics if metric.name in found]
    head = _line("th", ["", *(f"{_text(metric.title)} {ARROWS[metric.better]}" for metric in metrics)])
    lines = []
    for name in others:
        cells = []
        for metric in metrics:
            ends = found[metric.name].get(name)
            form = f"+.{metric.digits}f"
            small = "" if ends is None else f"<small>{ends['low']:{form}} to {ends['high']:{form}}</small>"
            cells.append("" if ends is None else f"{ends['mean']:{form}}{small}")
        lines.append(_line("td", [_text(name), *cells]))
    about = "Mean difference over the same images, and its 95 % interval: one that holds 0 shows no difference."
    title = f'<h2 id="differences">Differences from {_text(first)}</h2><p>{about}</p>'
    return f'<section aria-labelledby="differences">{title}{_frame(head, lines)}</section>'


def _problems(report: Report) -> str:
    parts = []
    for title, lines in (("Not used", report.failed), ("Odd, but used", report.warnings)):
        if lines:
            more = [f"and {len(lines) - _LINES} more, in scores.json"] if len(lines) > _LINES else []
            items = "".join(f"<li><code>{_text(line)}</code></li>" for line in [*lines[:_LINES], *more])
            parts.append(f"<h2>{title}: {len(lines)}</h2><ul>{items}</ul>")
    return f"<section>{''.join(parts)}</section>" if parts else ""


def _histograms(report: Report) -> str:
    figures = []
    rows = [row for row in report.comparison.rows if any(score.images for score in row.scores.values())]
    for metric in report.metrics:
        values = {row.subject.name: list(row.scores[metric.name].images.values()) for row in rows}
        if drawing := histogram(metric.title, values):
            figures.append(f"<figure><figcaption>{_text(metric.title)}</figcaption>{drawing}</figure>")
    if not figures:
        return ""
    names = legend([row.subject.name for row in rows])
    title = '<h2 id="spread">How the scores are spread</h2>'
    body = f'{names}<div class="histograms">{"".join(figures)}</div>'
    return f'<section aria-labelledby="spread">{title}{body}</section>'


def _sheets(report: Report, hq: Mapping[str, Path] | None, most: int) -> str:
    names = choose(report.comparison, report.metrics, most)
    if not names or not most:
        return ""
    shown = columns(report.comparison, hq)
    keys = [(metric, row) for metric in report.metrics if metric.image_scores for row in report.comparison.methods]
    keys = [(metric, row) for metric, row in keys if row.scores[metric.name].images]
    options = ['<option value="0 1">name</option>']
    for i, (metric, row) in enumerate(keys, 1):
        sign = 1 if metric.better == "higher" else -1
        of = f" of {row.subject.name}" if len(report.comparison.methods) > 1 else ""
        options.append(f'<option value="{i} {sign}">{_text(metric.title + of)}, worst first</option>')
        options.append(f'<option value="{i} {-sign}">{_text(metric.title + of)}, best first</option>')
    figures = []
    for name in sorted(names):
        values = [row.scores[metric.name].images.get(name) for metric, row in keys]
        scores = [name, *(_sortable(value) for value in values)]
        picture = data_url(sheet([files.get(name) for _, files in shown]))
        labels = "".join(f"<span>{_text(label)}</span>" for label, _ in shown)
        alt = _text(f"{name}: {', '.join(label for label, _ in shown)}; whole, eyes, mouth")
        figures.append(
            f'<article class="sheet" tabindex="0" data-scores="{_text(json.dumps(scores))}"><h3>{_text(name)}</h3>'
            f'<div class="picture"><div class="names">{labels}</div><img src="{picture}" alt="{alt}"></div>'
            f"<p>{_scores_of(name, report)}</p></article>"
        )
    count = len(report.comparison.methods[0].names)
    about = f"{len(names)} of {count} images: the worst, the best and those in the middle by each metric."
    title = f'<h2 id="pictures">Pictures</h2><p>{about}</p>'
    control = (
        f'<p class="controls"><label for="order">Sort by</label> <select id="order">{"".join(options)}</select></p>'
    )
    body = f'<div class="sheets" id="sheet-list">{"".join(figures)}</div>'
    return f'<section aria-labelledby="pictures">{title}{control}{body}</section>'


def _sortable(value: float | None) -> float | None:
    """JSON has no infinity; what can't be sorted comes last."""
    if value is None or math.isnan(value):
        return None
    return max(min(value, 1e300), -1e300)


def _scores_of(name: str, report: Report) -> str:
    several = len(report.comparison.methods) > 1
    parts = []
    for row in report.comparison.methods:
        own = [
            f"{metric.title} {row.scores[metric.name].images[name]:.{metric.digits}f}"
            for metric in report.metrics
            if name in row.scores[metric.name].images
        ]
        parts.append(_text((f"{row.subject.name}: " if several else "") + ", ".join(own)))
    return "<br>".join(parts)


def _restoration(report: Report) -> str:
    if not report.restoration:
        return ""
    settings = ", ".join(f"{name} {value}" for name, value in report.restoration.items() if value is not None)
    return f"<p>restored by <code>{_text(settings)}</code></p>"


def _protocol(metrics: Sequence[Metric]) -> str:
    head = _line("th", ["Metric", "Name", "How", "Whose choice"])
    lines = [_line("td", [_text(x) for x in (m.title, m.name, m.how, m.source)]) for m in metrics]
    return _frame(head, lines, words=True)
