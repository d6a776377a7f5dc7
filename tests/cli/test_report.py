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

# Japanese, beyond 16 bits, and bytes that are no UTF-8.
NAMES = ["顔.png", "🙂.png", os.fsdecode(b"\xff.png")]


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
        assert "found no face in 3" in stream.read()
