"""What a program compiled for a TPU moves through the chip's main memory (HBM), read off its optimized HLO.

XLA's own count of "bytes accessed" is of every operation's operands and results wherever they lie, so what is fetched
into the fast memory (VMEM) before it is used counts several times. In the HLO each array says where it lies: those with
`S(1)` in their layout are in VMEM, those without a space in HBM. Here an operation reads the operands and writes the
results that lie in HBM, each once and unpadded; an asynchronous copy counts what it copies, where it starts.

A fusion that uses a part of an operand counts as reading all of it. Loops, conditions and calls aren't looked into:
programs with them are refused.
"""

import math
import re
from collections.abc import Iterator

_ARRAY = re.compile(r"\b(pred|(?:bf|f|s|u|c)(\d+)\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
# They move nothing: names for arrays, or the end of what a start has counted.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id"}

Array = tuple[float, bool]  # bytes, and whether it lies in HBM


def hbm_traffic(hlo: str) -> tuple[float, float]:
    """Bytes read from HBM and written to it by an optimized HLO module's entry computation.

    Raises:
        ValueError: the text has no entry computation, or that one has a loop, a condition or a call.
    """
    _, entry, body = hlo.partition("\nENTRY ")
    if not entry:
        raise ValueError("no ENTRY computation: this isn't the text of an HLO module")
    results: dict[str, list[Array]] = {}
    read = written = 0.0
    for name, result, operation, operands in _instructions(body):
        results[name] = list(_arrays(result))
        if operation in ("while", "conditional", "call"):
            raise ValueError(f"{name}: what the computation of a {operation} moves isn't known")
        if operation in _FREE or operation.endswith("-done"):
            continue
        if operation.endswith("-start"):
            # A copy's result is target, source, context; a slice's (sources), target, context.
            (first, first_in_hbm), (second, second_in_hbm) = results[name][:2]
            to_hbm, from_hbm = (first_in_hbm, second_in_hbm) if result[1] != "(" else (second_in_hbm, first_in_hbm)
            read += min(first, second) * from_hbm
            written += min(first, second) * to_hbm
            continue
        read += sum(size for operand in operands for size, in_hbm in results.get(operand, ()) if in_hbm)
        written += sum(size for size, in_hbm in results[name] if in_hbm)
    return read, written


def _instructions(body: str) -> Iterator[tuple[str, str, str, list[str]]]:
    """Name, result, operation and operands of each instruction up to the computation's end."""
    for line in body.splitlines():
        if line.startswith("}"):
            return
        if (match := _INSTRUCTION.match(line)) is None:
            continue
        name, rest = match.groups()
        end = _closing(rest) if rest.startswith("(") else rest.index(" ")
        operation, _, operands = rest[end:].strip().partition("(")
        yield name, rest[:end], operation, re.findall(r"%([\w.\-]+)", operands[: _closing("(" + operands)])


def _closing(text: str) -> int:
    """Where the parenthesis that `text` opens with is closed: the place behind it."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return place + 1
    raise ValueError(f"a parenthesis is never closed: {text[:80]}")


def _arrays(shape: str) -> Iterator[Array]:
    for kind, bits, sizes, layout in _ARRAY.findall(shape):
        count = math.prod(int(size) for size in sizes.split(",") if size)
        yield count * (1 if kind == "pred" else int(bits) / 8), "S(" not in layout
