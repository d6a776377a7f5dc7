"""Table, JSON and CSV: everything is in them."""

import csv
import dataclasses
import io
import json

import numpy as np
import pytest

from interlcm_jax.evaluation.compare import Comparison


def test_the_table_says_what_the_numbers_are_of(report):
    text = str(report)
    assert "protocol basicsr" in text
    assert "8 images" in text
    assert report.comparison.reference_digest in text
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
    assert rows["one"]["scores"]["psnr"] == {"value": None, "why": "it is inf", "count": 8}
    assert rows["one"]["images"]["008"] == {"psnr": None, "ssim": 1.0}
    assert rows["one"]["notes"] == ["008: psnr is inf"]
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
    odd = [(line["row"], line["image"], line["psnr"]) for line in lines if line["problem"]]
    assert odd == [("one", "008", ""), ("<two>", "000", "")]
    assert next(line["problem"] for line in lines if line["row"] == "one" and line["image"] == "008") == "psnr is inf"
    values = [float(line["ssim"]) for line in lines if line["row"] == "one"]
    assert np.mean(values) == pytest.approx(report.comparison.methods[0].scores["ssim"].value, abs=1e-9)


def test_files_appear_whole(report, tmp_path):
    report.write(tmp_path / "out", "<p>page</p>")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["report.html", "scores.csv", "scores.json"]
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["format"] == 2


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t"])
def test_no_name_is_a_formula_to_a_spreadsheet(report, start):
    row = report.comparison.rows[1]
    name, problem = f"{start}SUM(1;2)", f"{start}1: broken"
    odd = dataclasses.replace(
        row, names=[name], failures={name: problem}, scores={m: row.scores[m] for m in row.scores}
    )
    found = dataclasses.replace(report, comparison=Comparison([odd], None, []))
    _, [_, image, *_, told] = csv.reader(io.StringIO(found.to_csv()))
    assert (image, told) == (f"'{name}", f"'{problem}")
