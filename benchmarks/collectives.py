"""What a compiled program sends between devices, read from its optimized HLO."""

import collections
import functools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")

_COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<type>.*?) (?P<opcode>[\w\-]+)\((?P<rest>.*)$")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|\w+_computations?)=(%[\w.\-]+|\{[^}]*\})")


class _Instruction(NamedTuple):
    name: str
    type: str
    opcode: str
    rest: str  # operands and attributes


def collective_bytes(hlo: str) -> dict[str, int]:
    """The bytes of each kind of collective that one device takes part in, over a whole run of the program.

    One collective counts as the larger of what it takes on a device and what it gives there: an all-reduce the array
    that is summed, an all-gather the gathered one, a reduce-scatter the one before it is scattered. What travels over
    a link depends on the algorithm besides. A loop's count as often as it runs; those of a conditional all count.

    Args:
        hlo: the optimized program, `compiled.as_text()`.

    Raises:
        ValueError: a loop with collectives in it doesn't tell how often it runs.
    """
    computations, entry = _parse(hlo)

    @functools.cache
    def count(name: str) -> collections.Counter[str]:
        total: collections.Counter[str] = collections.Counter()
        types = {instruction.name: instruction.type for instruction in computations[name]}
        for instruction in computations[name]:
            kind = instruction.opcode.removesuffix("-start")
            if kind in KINDS:
                total[kind] += _bytes_of(instruction, types)
            for called in _called(instruction):
                inside = count(called)
                times = _trips(instruction, computations) if inside and instruction.opcode == "while" else 1
                total.update({kind: times * number for kind, number in inside.items()})
        return total

    return dict(count(entry))


def _parse(hlo: str) -> tuple[dict[str, list[_Instruction]], str]:
    """The instructions of each computation, and the name of the one that is run."""
    computations: dict[str, list[_Instruction]] = {}
    entry, inside = "", ""
    for line in hlo.splitlines():
        if head := _COMPUTATION.match(line):
            inside = head["name"]
            computations[inside] = []
            entry = inside if head["entry"] else entry
        elif instruction := _INSTRUCTION.match(line):
            computations[inside].append(_Instruction(**instruction.groupdict()))
    return computations, entry


def _called(instruction: _Instruction) -> Iterator[str]:
    # The end of an asynchronous operation names what its start has called.
    if instruction.opcode.endswith(("-done", "-update")) or instruction.opcode in KINDS:
        return
    for names in _CALLED.findall(instruction.rest):
        yield from re.findall(r"%([\w.\-]+)", names)


def _bytes_of(instruction: _Instruction, types: dict[str, str]) -> int:
    operands = re.findall(r"%([\w.\-]+)", instruction.rest.split(")")[0])
    taken, given = sum(_size(types[name]) for name in operands), _size(instruction.type)
    # Started ones give their operands too, but for all-reduce.
    if instruction.opcode.endswith("-start") and not instruction.opcode.startswith("all-reduce"):
        given -= taken
    return max(taken, given)


def _size(kind: str) -> int:
    """Bytes of a type, all arrays of a tuple together, without the padding to tiles."""
    return sum(
        math.ceil(math.prod(int(n) for n in shape.split(",") if n) * _bits(element) / 8)
        for element, shape in _ARRAY.findall(kind)
    )


def _bits(element: str) -> int:
    return 8 if element == "pred" else int(re.search(r"\d+", element)[0])


def _trips(loop: _Instruction, computations: dict[str, list[_Instruction]]) -> int:
    """How often a loop runs: as XLA notes it, or else the bound that its condition compares the counter with."""
    if noted := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest):
        return int(noted[1])
    condition = computations[re.search(r"condition=%?([\w.\-]+)", loop.rest)[1]]
    bounds = [i.rest.split(")")[0] for i in condition if i.opcode == "constant" and i.type.startswith("s32[]")]
    if len(bounds) != 1:
        raise ValueError(f"loop {loop.name} doesn't tell how often it runs")
    return int(bounds[0])
