"""The page shows everything, and needs nothing else."""

import json
import re
from html.parser import HTMLParser

import pytest

from interlcm_jax.evaluation.page import render
from interlcm_jax.evaluation.pairs import images_by_name


class Page(HTMLParser):
    """The elements and the text of a page; every element is closed."""

    VOID = ("meta", "br", "img", "line")

    def __init__(self, text: str):
        super().__init__()
        self.open, self.elements, self.text = [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def test_the_page_needs_nothing_else(report, report_folder):
    text = render(report, images_by_name(report_folder / "hq")[0], 5)
    page = Page(text)
    for _, attrs in page.elements:
        for name in ("src", "href", "xlink:href", "action"):
            assert (attrs.get(name) or "data:").startswith("data:image/jpeg;base64,") or not attrs.get(name)
    assert not re.search(r"https?://|@import|url\(", text)
    assert len(page.all("img")) == len(page.all("article")) == 5
    assert all(attrs["alt"] for attrs in page.all("img"))
    assert "<two>" in page.text
    assert "<b>broken" not in text
    assert "Not used: 1" in page.text
    assert "Differences from one" in page.text
    assert "the table's source" in page.text
    assert "seed 3" in page.text
    assert not re.search(r"\$[a-z]", text)


def test_pictures_can_be_sorted_by_every_metric_of_every_method(report, report_folder):
    page = Page(render(report, images_by_name(report_folder / "hq")[0], 5))
    values = [attrs["value"] for attrs in page.all("option")]
    # By name, and by two metrics of two methods either way.
    assert len(values) == 1 + 2 * 2 * 2
    for attrs in page.all("article"):
        scores = json.loads(attrs["data-scores"], parse_constant=pytest.fail)
        name, *rest = scores
        assert len(rest) == 4
        assert all(int(value.split()[0]) < len(scores) for value in values)
        finite = report.comparison.methods[1].scores["ssim"].images[name]
        assert finite in rest
