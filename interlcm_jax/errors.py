"""The errors a user can cause, so that callers and the command line can tell them from bugs."""

import numbers
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


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


def number_problems(name: str, value: object, least: float, most: float, kind: type = int) -> list[str]:
    """One line saying that a setting isn't a number of this kind from `least` to `most`, or no line where it is."""
    # NumPy's numbers are of these too.
    kinds = numbers.Integral if kind is int else numbers.Real
    if isinstance(value, kinds) and not isinstance(value, bool) and least <= value <= most:
        return []
    what = "an integer" if kind is int else "a number"
    return [f"{name} is {repr(value)[:40]}, but must be {what} from {least} to {most}"]


def mapping_of(parent: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object within a parsed JSON file; one that is absent is empty.

    Raises:
        InterLCMError: there is something else of this name.
    """
    found = parent.get(name, {})
    if not isinstance(found, dict):
        raise InterLCMError(f"{name} is {repr(found)[:40]}, but must be an object of names and values")
    return found
