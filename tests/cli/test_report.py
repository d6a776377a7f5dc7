"""The summary of a run, where a terminal or a pipe can't show every file's name."""

import io
import json
import os
import sys
from pathlib import Path

import pytest

from interlcm_jax.cli.report import Report
from interlcm_jax.photos.files import Outcome
from interlcm_jax.photos.plan import Job

# Japanese, beyond 16 bits, bytes that are no UTF-8, and one that clears the screen.
NAMES = ["顔.png", "🙂.png", os.fsdecode(b"\xff.png"), "\x1b[2J.png"]


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii"])
@pytest.mark.parametrize("as_json", [True, False])
def test_names_that_cannot_be_shown_cost_no_summary(monkeypatch, encoding, as_json):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    jobs = [Job(Path(name), Path("out") / name) for name in NAMES]
    report = Report([Outcome(job) for job in jobs], Path("out"))
    assert report.print(as_json=as_json) == 0
    stream.seek(0)
    if as_json:
        assert json.loads(stream.read())["no_face"] == NAMES
    else:
        text = stream.read()
        assert "found no face in 4" in text
        assert "\x1b" not in text


def test_faces_that_were_left_are_counted_and_their_files_named():
    jobs = [Job(Path(f"{i}.png"), Path("out") / f"{i}.png") for i in range(4)]
    outcomes = [Outcome(jobs[0], 2), Outcome(jobs[1], 1, left=3), Outcome(jobs[2], left=1), Outcome(jobs[3])]
    report = Report(outcomes, Path("out"))
    lines = str(report).splitlines()
    assert lines[0] == "restored 3 of 4 images (3 faces) into out"
    assert lines[1].startswith("left 4 faces as they were, which are sharper than this model draws")
    assert lines[2:4] == ["  1.png: 3 of 4", "  2.png: 1 of 1"]
    assert "found no face in 1" in lines[4]
    summary = report.to_json()
    assert [(entry["faces"], entry["left"]) for entry in summary["restored"]] == [(2, 0), (1, 3), (0, 1)]
    assert summary["no_face"] == ["3.png"]
