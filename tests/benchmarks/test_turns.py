"""Two sides in turns, and the report of what they took."""

import json

import pytest

from benchmarks.report import Report
from benchmarks.turns import OURS, THEIRS, Worker, take_turns


def worker(seconds: float) -> Worker:
    program = f"import time; from benchmarks.turns import serve; serve(lambda: time.sleep({seconds}), seven=lambda: 7)"
    return Worker(["-c", program])


def test_medians_of_each_side_their_share_and_what_each_process_tells():
    ours, theirs = take_turns({OURS: worker(0.05), THEIRS: worker(0.1)}, repeats=2)
    assert (ours["side"], theirs["side"], ours["seven"]) == (OURS, THEIRS, 7)
    assert 0.05 <= ours["seconds"] < theirs["seconds"]
    assert ours["of_theirs"] == ours["seconds"] / theirs["seconds"]
    assert theirs["of_theirs"] == 1
    assert ours["first_seconds"] > ours["seconds"]
    assert 0 < ours["peak_gb"] < 1


def test_a_process_that_ends_by_itself_is_an_error():
    with pytest.raises(SystemExit, match="exit code 3"):
        Worker(["-c", "raise SystemExit(3)"])


def test_rows_are_shown_and_written_as_they_come(tmp_path, capsys):
    file = tmp_path / "rows.json"
    report = Report({"peak_gb": ".2f", "sent": ".1f", "problem": ""}, file)
    report.add({"peak_gb": 1.234, "sent": {"b": 1, "a": 2.55}, "more": True})
    assert json.loads(file.read_text()) == {"peak_gb": 1.234, "sent": {"b": 1, "a": 2.55}, "more": True}
    report.add({"problem": "too much"})
    assert len(file.read_text().splitlines()) == 2
    assert capsys.readouterr().out.splitlines() == [
        "| peak gb | sent | problem |",
        "| --- | --- | --- |",
        "| 1.23 | a 2.5, b 1.0 |  |",
        "|  |  | too much |",
    ]


def test_a_file_with_rows_of_another_run_is_left_alone(tmp_path):
    file = tmp_path / "rows.json"
    file.write_text("{}\n")
    with pytest.raises(SystemExit, match=r"rows\.json exists"):
        Report({"a": ""}, file)
    assert file.read_text() == "{}\n"
