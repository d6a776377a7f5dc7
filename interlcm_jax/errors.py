"""The errors a user can cause, so that callers and the command line can tell them from bugs."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path


def printable(text: str) -> str:
    r"""Text of strangers with what would steer a terminal, like the start of an escape sequence, written as \x1b."""
    return "".join(c if c == "\n" or unicodedata.category(c)[0] != "C" else ascii(c)[1:-1] for c in text)


class InterLCMError(ValueError):
    """Something the user gave is wrong; the message says what, in which file, and what to do. Exit code 2."""

    def __init__(self, message: str):
        super().__init__(printable(message))


class WeightsError(InterLCMError):
    """Weights that don't fit their network: every offending key of one file is listed in one message.

    Args:
        source: the file or folder the weights came from.
        problems: one line per kind of problem (see `describe`).
        hint: what the user can do about it.
    """

    def __init__(self, source: str | Path, problems: Sequence[str], hint: str = ""):
        self.source, self.problems = source, tuple(problems)
        lines = [f"{source}: {problems[0]}"] if len(problems) == 1 else [f"{source}:", *(f"  {p}" for p in problems)]
        super().__init__("\n".join([*lines, hint] if hint else lines))


def describe(kind: str, keys: Sequence[str]) -> list[str]:
    """One line naming every key with this problem, or no line where there is none."""
    return [f"{len(keys)} {kind}: {', '.join(keys)}"] if keys else []
