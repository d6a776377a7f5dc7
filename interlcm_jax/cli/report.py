"""What became of each input: the progress bar, the summary for people, and the one for scripts."""

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from interlcm_jax.errors import InterLCMError
from interlcm_jax.photos.plan import Job


@dataclasses.dataclass
class Report:
    """The outcomes of a run, by job.

    Attributes:
        jobs: all that is to be done, in order.
        out: the folder of the results.
        skipped: results that were there already.
        faces: how many were restored, by input; 0 where none was found, and no result written.
        failures: what went wrong, by input.
    """

    jobs: Sequence[Job]
    out: Path
    skipped: Sequence[Job] = ()
    faces: dict[Job, int] = dataclasses.field(default_factory=dict)
    failures: dict[Job, str] = dataclasses.field(default_factory=dict)

    def __enter__(self) -> "Report":
        self._started = time.monotonic()
        self._bar = tqdm(total=len(self.jobs), unit="image", smoothing=0.1)
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def done(self, job: Job, outcome: int | Exception) -> None:
        """Notes what became of a job: the number of its faces, or what was raised."""
        if isinstance(outcome, InterLCMError):
            self.failures[job] = str(outcome)
        elif isinstance(outcome, Exception):
            self.failures[job] = f"{job.source}: {type(outcome).__name__}: {outcome}"
        else:
            self.faces[job] = outcome
        self._bar.set_postfix_str(f"{sum(self.faces.values())} faces, {len(self.failures)} failed", refresh=False)
        self._bar.update()

    def __str__(self) -> str:
        restored, faceless = (
            [job for job in self.jobs if job in self.faces and bool(self.faces[job]) is found]
            for found in (True, False)
        )
        faces = sum(self.faces.values())
        lines = [f"restored {len(restored)} of {len(self.jobs)} images ({faces} faces) into {self.out}"]
        if self.skipped:
            lines.append(f"skipped {len(self.skipped)} that were there already")
        if faceless:
            lines.append(
                f"found no face in {len(faceless)}, so nothing was written for them "
                "(--aligned takes a whole image as one face):"
            )
            lines += [f"  {job.source}" for job in faceless]
        return "\n".join(lines)

    def print(self, *, as_json: bool) -> int:
        """Prints the summary on standard output, and failures on standard error.

        Returns:
            The exit code: 1 if anything failed.
        """
        # In ASCII, JSON comes through whatever encoding a pipe has, and names that aren't UTF-8 do too.
        text = json.dumps(self.to_json(), indent=2) if as_json else str(self)
        encoding = sys.stdout.encoding or "utf-8"
        print(text.encode(encoding, "backslashreplace").decode(encoding))
        for job in self.jobs:
            if job in self.failures:
                print(f"failed: {self.failures[job]}", file=sys.stderr)
        return 1 if self.failures else 0

    def to_json(self) -> dict[str, Any]:
        """The summary for scripts; every input is in just one of the four lists."""
        done = [job for job in self.jobs if job in self.faces]
        return {
            "restored": [
                {"input": str(job.source), "output": str(job.target), "faces": self.faces[job]}
                for job in done
                if self.faces[job]
            ],
            "no_face": [str(job.source) for job in done if not self.faces[job]],
            "failed": [
                {"input": str(job.source), "error": self.failures[job]} for job in self.jobs if job in self.failures
            ],
            "skipped": [{"input": str(job.source), "output": str(job.target)} for job in self.skipped],
            "seconds": round(time.monotonic() - self._started, 3),
        }
