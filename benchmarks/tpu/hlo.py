"""What a compiled program moves, read from its optimized HLO: through main memory (HBM), and between devices."""

import collections
import functools
import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")

_COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(
    r"^\s+(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<type>.*?) (?P<opcode>[\w\-]+)"
    r"\((?P<operands>.*?)\)(?:, (?P<attributes>.*))?$"
)
_ARRAY = re.compile(r"\b(?:pred|[a-z]+(\d+)\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|\w+_computations?)=(%[\w.\-]+|\{[^}]*\})")
# What goes to other slices of a TPU, over the network between hosts.
_BETWEEN_SLICES = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
# They move nothing: names for arrays, or the end of what a start has counted.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id"}


class _Array(NamedTuple):
    size: int  # bytes, without the padding to tiles
    in_hbm: bool


class _Instruction(NamedTuple):
    name: str
    type: str
    opcode: str
    operands: str
    attributes: str

    @property
    def results(self) -> list[_Array]:
        """All arrays of its type, those in tuples too."""
        return [_array(*found) for found in _ARRAY.findall(self.type)]

    @property
    def names(self) -> list[str]:
        """Of the operands."""
        return re.findall(r"%([\w.\-]+)", self.operands)


def hbm_bytes(hlo: str) -> int | None:
    """The bytes that a program reads from the chip's main memory and writes to it, each array unpadded.

    XLA's own count of "bytes accessed" is of every operation's operands and results wherever they lie, so what is
    fetched into the fast memory (VMEM) before it is used counts several times. Here an operation reads the operands and
    writes the results that lie in HBM; an asynchronous copy counts what it copies, where it starts. A fusion that uses
    a part of an operand counts as reading all of it.

    Args:
        hlo: the optimized program, `compiled.as_text()`.

    Returns:
        The bytes; None for a program with a loop, a condition or a call, which aren't looked into.
    """
    computations, entry = _parse(hlo)
    results: dict[str, list[_Array]] = {}
    moved = 0
    for instruction in computations[entry]:
        opcode, own = instruction.opcode, instruction.results
        results[instruction.name] = own
        if opcode in ("while", "conditional", "call"):
            return None
        if opcode in _FREE or opcode.endswith("-done"):
            continue
        if opcode.endswith("-start"):
            # The first two of its results are the target and the source, in either order.
            moved += min(own[0].size, own[1].size) * (own[0].in_hbm + own[1].in_hbm)
            continue
        operands = [array for name in instruction.names for array in results.get(name, ())]
        moved += sum(array.size for array in (*operands, *own) if array.in_hbm)
    return moved


def collective_bytes(hlo: str) -> dict[str, int]:
    """The bytes of each kind of collective that one device takes part in, over a whole run of the program.

    One collective counts as the larger of what it takes on a device and what it gives there: an all-reduce the array
    that is summed, an all-gather the gathered one, a reduce-scatter the one before it is scattered. What travels over
    a link depends on the algorithm besides. What a device sends to other slices of a TPU counts under names of its own,
    like "all-reduce between slices". A loop's count as often as it runs; those of a conditional all count.

    Args:
        hlo: the optimized program, `compiled.as_text()`.

    Raises:
        ValueError: a loop with collectives in it doesn't tell how often it runs.
    """
    computations, entry = _parse(hlo)

    @functools.cache
    def count(name: str) -> collections.Counter[str]:
        total: collections.Counter[str] = collections.Counter()
        sizes = {one.name: _size(one.results) for one in computations[name]}
        for instruction in computations[name]:
            kind = instruction.opcode.removesuffix("-start")
            if kind in KINDS:
                taken, given = sum(sizes[operand] for operand in instruction.names), sizes[instruction.name]
                # Started ones give their operands too, but for all-reduce.
                if instruction.opcode.endswith("-start") and kind != "all-reduce":
                    given -= taken
                total[kind] += max(taken, given)
            elif instruction.opcode == "send" and (found := _BETWEEN_SLICES.search(instruction.attributes)):
                kind = found[1].lower().replace("_", "-")
                total[f"{kind} between slices"] += instruction.results[0].size
            for called in _called(instruction):
                inside = count(called)
                times = _trips(instruction, computations) if inside and instruction.opcode == "while" else 1
                total.update({kind: times * number for kind, number in inside.items()})
        return total

    return dict(count(entry))


def megacycles(hlo: str) -> float | None:
    """The compiler's own estimates of the operations, added up, 1e6 cycles; None where it makes none (on CPU).

    The bodies of loops aren't in it, nor what waits for copies.
    """
    estimates = re.findall(r'"estimated_cycles":"(\d+)"', hlo.partition("\nENTRY ")[2])
    return sum(map(int, estimates)) / 1e6 if estimates else None


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
            computations[inside].append(_Instruction(**instruction.groupdict(default="")))
    return computations, entry


def _array(bits: str, shape: str, layout: str) -> _Array:
    # An element of `pred` takes a byte. What lies in the fast memory on the chip has `S(1)` in its layout.
    elements = math.prod(int(length) for length in shape.split(",") if length)
    return _Array(math.ceil(elements * int(bits or 8) / 8), "S(" not in layout)


def _size(arrays: Sequence[_Array]) -> int:
    return sum(array.size for array in arrays)


def _called(instruction: _Instruction) -> Iterator[str]:
    # The end of an asynchronous operation names what its start has called.
    if instruction.opcode.endswith(("-done", "-update")) or instruction.opcode in KINDS:
        return
    for names in _CALLED.findall(instruction.attributes):
        yield from re.findall(r"%([\w.\-]+)", names)


def _trips(loop: _Instruction, computations: dict[str, list[_Instruction]]) -> int:
    """How often a loop runs: as XLA notes it, or else the bound that its condition compares the counter with."""
    if noted := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
        return int(noted[1])
    condition = computations[re.search(r"condition=%?([\w.\-]+)", loop.attributes)[1]]
    bounds = [i.operands for i in condition if i.opcode == "constant" and i.type.startswith("s32[]")]
    if len(bounds) != 1:
        raise ValueError(f"loop {loop.name} doesn't tell how often it runs")
    return int(bounds[0])
