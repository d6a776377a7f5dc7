"""Network sizes as frozen dataclasses that read and write the published `config.json` files."""

import dataclasses
import inspect
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

from interlcm_jax.errors import InterLCMError, number_problems

# No network has more of anything; a file that asks for more is damaged, and would take all memory.
MOST, MOST_LAYERS, MOST_LEVELS = 2**16, 256, 16


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Base of every network's config: field names are those of the published `config.json`, unless `RENAMED`.

    `FIXED` holds the settings of the published file that the network here implements in just one way; a file that
    asks for another way is refused, since ignoring it would load the weights into a different function.
    """

    FIXED: ClassVar[Mapping[str, Any]] = {}
    RENAMED: ClassVar[Mapping[str, str]] = {}

    def __post_init__(self) -> None:
        fields = {self.RENAMED.get(f.name, f.name): getattr(self, f.name) for f in dataclasses.fields(self)}
        problems = [problem for name, value in fields.items() for problem in _out_of_range(name, value)]
        if problems := problems or self.contradictions():
            raise InterLCMError(f"{type(self).__name__}: {'; '.join(problems)}")

    def contradictions(self) -> list[str]:
        """What of the sizes doesn't go together, one line each; every number is in its range by itself."""
        return []

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Self:
        """Builds the config from a published `config.json`, already parsed.

        Raises:
            InterLCMError: a setting is missing, of another type, out of range, contradicts another, or asks for
                something that this network doesn't implement; all are named.
        """
        problems = [
            f"{key}={config[key]!r} (only {value!r} is implemented)"
            for key, value in cls.FIXED.items()
            if key in config and config[key] != value and not (config[key] is None and value is False)
        ]
        values = {}
        for field in dataclasses.fields(cls):
            key = cls.RENAMED.get(field.name, field.name)
            if key in config:
                value = tuple(config[key]) if isinstance(config[key], list) else config[key]
                if not _fits(value, field.type):
                    problems.append(f"{key}={config[key]!r} (must be {inspect.formatannotation(field.type)})")
                values[field.name] = value
            elif field.default is dataclasses.MISSING:
                problems.append(f"{key} is missing")
        if problems:
            raise InterLCMError(f"{cls.__name__}: {'; '.join(problems)}")
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """The published `config.json` of this network, with the fixed settings spelled out."""
        values = {self.RENAMED.get(f.name, f.name): getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**self.FIXED, **{k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}}


def indivisible(name: str, values: Iterable[int], divisor: str, by: int) -> list[str]:
    """A line for each of a field's values that another field doesn't divide."""
    return [f"{name} has {value}, which {divisor}={by} doesn't divide" for value in values if value % by]


def _out_of_range(name: str, value: Any) -> list[str]:
    if isinstance(value, tuple):
        if not 1 <= len(value) <= MOST_LEVELS:
            return [f"{name} has {len(value)} entries, but must have from 1 to {MOST_LEVELS}"]
        return [problem for each in value for problem in _out_of_range(name, each)]
    if isinstance(value, float):
        return number_problems(name, value, 1e-12, 1e12, float)
    if isinstance(value, int) and not isinstance(value, bool):
        several = any(word in name for word in ("layers", "blocks", "stacks", "depth"))
        return number_problems(name, value, 1, MOST_LAYERS if several else MOST)
    return []


def _fits(value: Any, kind: Any) -> bool:
    """Whether a parsed setting is of a field's type; other models give lists where these networks take a number."""
    if isinstance(kind, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_fits(element, typing.get_args(kind)[0]) for element in value)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)
