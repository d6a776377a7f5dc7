"""Table, JSON, CSV and page: everything is in them, and the page needs nothing else."""

import csv
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from interlcm_jax.evaluation.bootstrap import difference, interval
from interlcm_jax.evaluation.catalog import METRICS
from interlcm_jax.evaluation.compare import Subject, evaluate
from interlcm_jax.evaluation.page import render
from interlcm_jax.evaluation.pairs import find
from interlcm_jax.evaluation.protocols import named
from interlcm_jax.evaluation.published import Published, published, tables
from interlcm_jax.evaluation.report import Report
from interlcm_jax.evaluation.sheets import TILE, choose, sheet, zooms
from interlcm_jax.evaluation.testsets import TEST_SETS
from interlcm_jax.evaluation.weights import Library
from tests.evaluation.pictures import picture, save, write_set

TWO = [METRICS["psnr"], METRICS["ssim"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    write_set(folder, 9)
    # Equal to its original: infinitely good.
    (folder / "restored" / "008.png").write_bytes((folder / "hq" / "008.png").read_bytes())
    (folder / "other" / "a").mkdir(parents=True)
    for file in (folder / "lq").iterdir():
        (folder / "other" / file.name).write_bytes(file.read_bytes())
    (folder / "other" / "000.png").write_bytes(b"<b>broken")
    return folder


@pytest.fixture(scope="module")
def report(folder):
    subjects = [
        Subject("LQ", "lq", find(folder / "lq")[0]),
        Subject("one", "method", find(folder / "restored")[0]),
        Subject("<two>", "method", find(folder / "other")[0]),
        Subject("HQ", "hq", find(folder / "hq")[0]),
    ]
    scores = evaluate(subjects, find(folder / "hq")[0], [*TWO, METRICS["lpips"]], Library())
    peers = Published({"Peer": {"psnr": 21.5}}, 8, ("the table's source",), ())
    return Report(named("basicsr"), [*TWO, METRICS["lpips"]], scores, "hq", None, peers, {"seed": 3}, ["a note"])


def test_the_table_says_what_the_numbers_are_of(report):
    text = str(report)
    assert "protocol basicsr" in text
    assert "8 images" in text
    assert report.scores.reference_digest in text
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert lines["LQ"][1] == "8"
    assert lines["HQ"][1:] == ["8", "-", "-", "-"]
    assert lines["one"][2] == "inf"
    assert lines["Peer"] == ["Peer", "(published)", "8", "21.5"]
    assert "no weights" in text
    assert "a note" in text


def test_json_is_strict_and_whole(report):
    text = json.dumps(report.to_json(), allow_nan=False)
    found = json.loads(text)
    assert (found["count"], found["protocol"]["name"]) == (8, "basicsr")
    assert found["metrics"]["psnr"]["source"].startswith("BasicSR")
    rows = {row["name"]: row for row in found["rows"]}
    assert rows["one"]["scores"]["psnr"]["value"] == "inf"
    assert rows["one"]["images"]["008"] == {"psnr": "inf", "ssim": 1.0}
    assert rows["one"]["scores"]["lpips"] == {"value": None, "why": "no weights"}
    assert list(rows["<two>"]["failed"]) == ["000"]
    low, high = rows["LQ"]["scores"]["ssim"]["interval"]
    assert low < rows["LQ"]["scores"]["ssim"]["value"] < high
    gap = found["differences"]["ssim"]["<two>"]
    assert gap["low"] <= gap["mean"] <= gap["high"] < 0
    assert gap["mean"] == pytest.approx(
        rows["<two>"]["scores"]["ssim"]["value"] - rows["one"]["scores"]["ssim"]["value"]
    )


def test_csv_has_a_line_for_every_image_of_every_row(report):
    lines = list(csv.DictReader(io.StringIO(report.to_csv())))
    assert len(lines) == 4 * 8 + 1
    broken = [line for line in lines if line["problem"]]
    assert [(line["row"], line["image"], line["psnr"]) for line in broken] == [("<two>", "000", "")]
    values = [float(line["ssim"]) for line in lines if line["row"] == "one"]
    assert np.mean(values) == pytest.approx(report.scores.methods[0].scores["ssim"].value, abs=1e-9)


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


def test_the_page_needs_nothing_else(report, folder):
    text = render(report, find(folder / "hq")[0], 5)
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


def test_pictures_can_be_sorted_by_every_metric_of_every_method(report, folder):
    page = Page(render(report, find(folder / "hq")[0], 5))
    values = [attrs["value"] for attrs in page.all("option")]
    # By name, and by two metrics of two methods either way.
    assert len(values) == 1 + 2 * 2 * 2
    for attrs in page.all("article"):
        scores = json.loads(attrs["data-scores"], parse_constant=pytest.fail)
        name, *rest = scores
        assert len(rest) == 4
        assert all(int(value.split()[0]) < len(scores) for value in values)
        finite = report.scores.methods[1].scores["ssim"].images[name]
        assert finite in rest


def test_the_worst_and_the_best_are_shown(report):
    names = choose(report.scores, TWO, 4)
    images = report.scores.methods[0].scores["psnr"].images
    order = sorted(images, key=images.get)
    assert names[0] == order[0]
    assert names[1] == order[-1]
    assert len(names) == 4
    assert len(choose(report.scores, TWO, 100)) == 8


def test_zooms_are_on_eyes_and_mouth():
    eyes, mouth = zooms(512)
    assert eyes[0] < 192.98 < 318.90 < eyes[2]
    assert eyes[1] < 240 < eyes[3]
    assert mouth[0] < 201.26 < 313.09 < mouth[2]
    assert mouth[1] < 371.3 < mouth[3]
    np.testing.assert_allclose(zooms(64), np.array([eyes, mouth]) / 8)


def test_a_sheet_shows_the_pixels_and_a_gray_tile_for_what_is_missing(tmp_path):
    face = np.zeros((512, 512, 3), np.uint8)
    left, top, right, bottom = (round(edge) for edge in zooms(512)[0])
    face[top:bottom, left:right] = (250, 10, 10)
    save(tmp_path / "face.png", face)
    save(tmp_path / "wide.png", picture(0, 32)[:16])
    image = np.asarray(sheet([tmp_path / "face.png", None, tmp_path / "wide.png"]))
    assert image[TILE + 30, TILE // 2].tolist() == [250, 10, 10]
    assert image[-20, TILE // 2].tolist() == [0, 0, 0]
    assert (image[:, TILE + 10 : TILE + 20] == 200).all()
    assert (image[-20, -20] == 255).all()
    Image.fromarray(image)


def test_files_appear_whole(report, tmp_path):
    report.write(tmp_path / "out", "<p>page</p>")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["report.html", "scores.csv", "scores.json"]
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["format"] == 1


def test_bootstrap_intervals():
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = interval(values)
    # The normal approximation's width.
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert low < values.mean() < high
    assert interval(values) == (low, high)
    assert interval([1.0]) is None
    assert interval([1.0, np.inf]) is None
    ours = {str(i): value for i, value in enumerate(values)}
    theirs = {name: value - 0.3 for name, value in ours.items()}
    assert difference(ours, theirs | {"more": 1.0}) == pytest.approx((0.3, 0.3, 0.3))


def test_published_numbers_stand_beside_ours_only_where_they_compare():
    metrics = ["psnr", "ssim", "lpips"]
    found = published("celeba-test", 3000, metrics)
    assert found.rows["PMRF"] == {"psnr": 26.37, "ssim": 0.7073, "lpips": 0.347}
    assert "torch-fidelity" in " ".join(found.notes)
    assert published("celeba-test", 3000, ["psnr-matched"]).rows == {}
    assert published(None, 3000, metrics) == Published()
    fewer = published("celeba-test", 2999, metrics)
    assert fewer.rows == {}
    assert "3000" in fewer.notes[0]


def test_published_tables_are_whole():
    for table in tables():
        assert table["source"]
        assert table["test_set"] not in TEST_SETS or table["count"] == TEST_SETS[table["test_set"]].count
        for column in table["columns"]:
            assert (column["metric"] is None) == bool(column.get("why"))
        for values in table["rows"].values():
            assert len(values) == len(table["columns"])
            assert all(isinstance(value, float) for value in values)
