"""The Visual Encoder of the release, `visual_encoder_*.pth`, whose files carry no config."""

import itertools
import re
from collections.abc import Mapping
from pathlib import Path

from interlcm_jax.convert.recognize import another_network
from interlcm_jax.convert.rules import CONV1D, Rule, Table
from interlcm_jax.errors import WeightsError, describe
from interlcm_jax.models.visual_encoder import Block, VisualEncoderConfig

TABLE = Table(
    rules=(
        Rule(r"(.*)\.kernel", r"\1.weight", CONV1D),
        Rule(r"(.*)\.scale", r"\1.weight"),
        Rule(r"(.*)\.bias", r"\1.bias"),
    )
)

# Blocks before the levels (conv, resize, res, attn, res) and after them (norm, conv).
_HEAD, _TAIL = 5, 2
_HINT = "Is this a Visual Encoder?"


def infer_config(
    shapes: Mapping[str, tuple[int, ...]],
    features: int,
    *,
    norm_num_groups: int = 32,
    origin: str | Path = "Visual Encoder",
) -> VisualEncoderConfig:
    """Reads the sizes, and where attention stands, off a state dict's shapes.

    Args:
        shapes: shape of each tensor by key, in PyTorch's layout.
        features: CLIP's width, which no weight tells.
        norm_num_groups: groups of the norms, which no weight tells either.
        origin: the file, for messages.

    Raises:
        WeightsError: the keys aren't those of a Visual Encoder, or its blocks stand in another order.
        InterLCMError: the sizes contradict each other, or `features` isn't a multiple of 3.
    """
    if other := another_network(shapes, ["blocks.2.conv1.weight"]):
        raise WeightsError(origin, [other], _HINT)
    blocks = _read_blocks(shapes, origin)
    levels = [[]]
    for block in blocks[_HEAD:-_TAIL]:
        if block.kind == "resize":
            levels.append([])
        else:
            levels[-1].append(block)
    if not all(levels):
        raise WeightsError(origin, [f"{len(blocks)} blocks, with an empty level among them"], _HINT)
    levels.reverse()
    config = VisualEncoderConfig(
        tokens=blocks[0].in_channels,
        context_tokens=blocks[-1].out_channels,
        features=features,
        block_out_channels=tuple(level[-1].out_channels for level in levels),
        attention=tuple(any(block.kind == "attn" for block in level) for level in levels),
        layers_per_block=sum(block.kind == "res" for block in levels[0]),
        norm_num_groups=norm_num_groups,
    )
    pairs = enumerate(itertools.zip_longest(blocks, config.blocks()))
    if odd := [
        f"blocks.{i} {_say(found)} instead of {_say(wanted)}" for i, (found, wanted) in pairs if found != wanted
    ]:
        raise WeightsError(origin, describe("blocks out of order", odd), _HINT)
    return config


def _read_blocks(shapes: Mapping[str, tuple[int, ...]], origin: str | Path) -> list[Block]:
    """The blocks of a state dict by their sub-keys."""
    grouped: dict[int, dict[str, tuple[int, ...]]] = {}
    strange = []
    for key, shape in shapes.items():
        if match := re.fullmatch(r"blocks\.(\d+)\.(.+)", key):
            grouped.setdefault(int(match[1]), {})[match[2]] = shape
        else:
            strange.append(key)
    problems = describe("unexpected keys", sorted(strange))
    problems += describe("blocks missing", [f"blocks.{i}" for i in range(max(grouped, default=0)) if i not in grouped])
    found = {i: _read_block(grouped[i]) for i in sorted(grouped)}
    unknown = [f"blocks.{i} ({', '.join(sorted(grouped[i]))})" for i, block in found.items() if block is None]
    problems += describe("blocks of an unknown kind", unknown)
    if not problems and len(found) <= _HEAD + _TAIL:
        problems.append(f"only {len(found)} blocks")
    if problems:
        raise WeightsError(origin, problems, _HINT)
    return [block for block in found.values() if block is not None]


def _read_block(shapes: Mapping[str, tuple[int, ...]]) -> Block | None:
    """One block, told by the weight that only its kind has; None if no kind has these."""
    for name, rank, kind in (
        ("conv1.weight", 3, "res"),
        ("q.weight", 3, "attn"),
        ("conv.weight", 3, "resize"),
        ("weight", 3, "conv"),
        ("weight", 1, "norm"),
    ):
        shape = shapes.get(name, ())
        if len(shape) == rank:
            return Block(kind, shape[min(1, rank - 1)], shape[0])
    return None


def _say(block: Block | None) -> str:
    return "nothing" if block is None else f"{block.kind} {block.in_channels}→{block.out_channels}"
