"""The summary of `interlcm restore`: for people, and as JSON for scripts."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interlcm_jax.errors import printable
from interlcm_jax.photos.plan import Job
from interlcm_jax.photos.video.names import is_video

if TYPE_CHECKING:
    from interlcm_jax.photos.files import Outcome


@dataclasses.dataclass(frozen=True)
class Report:
    """The outcomes of a run.

    Attributes:
        outcomes: what became of each image, in order.
        out: the folder of the results.
        skipped: results that were there already.
        seconds: how long the run took.
    """

    outcomes: "Sequence[Outcome]"
    out: Path
    skipped: Sequence[Job] = ()
    seconds: float = 0.0

    @property
    def restored(self) -> "list[Outcome]":
        """Images with faces, of which all that needed it were restored."""
        return [outcome for outcome in self.outcomes if outcome.faces or outcome.left]

    @property
    def faceless(self) -> list[Job]:
        """Images in which no face was found."""
        return [
            outcome.job for outcome in self.outcomes if outcome.error is None and not (outcome.faces or outcome.left)
        ]

    @property
    def failed(self) -> "list[Outcome]":
        """Images that couldn't be restored."""
        return [outcome for outcome in self.outcomes if outcome.error is not None]

    def __str__(self) -> str:
        faces = sum(outcome.faces for outcome in self.outcomes)
        kind = "files" if any(is_video(outcome.job.source) for outcome in self.outcomes) else "images"
        lines = [f"restored {len(self.restored)} of {len(self.outcomes)} {kind} ({faces} faces) into {self.out}"]
        if sharp := [outcome for outcome in self.outcomes if outcome.left]:
            lines.append(
                f"left {sum(outcome.left for outcome in sharp)} faces as they were, which are sharper than this model "
                "draws (--leave-sharp off restores them too):"
            )
            lines += [f"  {one.job.source}: {one.left} of {one.faces + one.left}" for one in sharp]
        if self.skipped:
            lines.append(f"skipped {len(self.skipped)} that were there already")
        if self.faceless:
            enlarged = any(outcome.enlarged for outcome in self.outcomes)
            done = "and enlarged them as they are" if enlarged else "so nothing was written for them"
            lines.append(f"found no face in {len(self.faceless)}, {done} (--aligned takes a whole image as one face):")
            lines += [f"  {job.source}" for job in self.faceless]
        return "\n".join(lines)

    def print(self, *, as_json: bool) -> int:
        """Prints the summary on standard output, and failures on standard error.

        Returns:
            The exit code: 1 if anything failed.
        """
        # In ASCII, JSON comes through whatever encoding a pipe has, and names that aren't UTF-8 do too.
        text = json.dumps(self.to_json(), indent=2) if as_json else printable(str(self))
        encoding = sys.stdout.encoding or "utf-8"
        print(text.encode(encoding, "backslashreplace").decode(encoding))
        for outcome in self.failed:
            print(printable(f"failed: {outcome.error}"), file=sys.stderr)
        return 1 if self.failed else 0

    def to_json(self) -> dict[str, Any]:
        """The summary for scripts; every input is in just one of the four lists."""
        return {
            "restored": [
                {"input": str(outcome.job.source), "output": str(outcome.job.target)}
                | {"faces": outcome.faces, "left": outcome.left}
                for outcome in self.restored
            ],
            "no_face": [str(job.source) for job in self.faceless],
            "failed": [{"input": str(outcome.job.source), "error": outcome.error} for outcome in self.failed],
            "skipped": [{"input": str(job.source), "output": str(job.target)} for job in self.skipped],
            "seconds": round(self.seconds, 3),
        }
