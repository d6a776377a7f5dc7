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
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        if problems := self._misfits(values) or self.contradictions():
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
        if not isinstance(config, Mapping):
            raise InterLCMError(f"{cls.__name__}: a {type(config).__name__} instead of a config of names and values")
        problems = [
            f"{key}={config[key]!r} (only {value!r} is implemented)"
            for key, value in cls.FIXED.items()
            if key in config and config[key] != value and not (config[key] is None and value is False)
        ]
        values = {}
        for field in dataclasses.fields(cls):
            key = cls.RENAMED.get(field.name, field.name)
            if key in config:
                values[field.name] = tuple(config[key]) if isinstance(config[key], list) else config[key]
            elif field.default is dataclasses.MISSING:
                problems.append(f"{key} is missing")
        if problems:
            raise InterLCMError(f"{cls.__name__}: {'; '.join(problems + cls._misfits(values))}")
        return cls(**values)

    @classmethod
    def _misfits(cls, values: Mapping[str, Any]) -> list[str]:
        """A line for each field's value that is of another type or out of range."""
        problems = []
        for field in dataclasses.fields(cls):
            key, value = cls.RENAMED.get(field.name, field.name), values.get(field.name, field.default)
            if _fits(value, field.type):
                # What a network may be without says so by its default.
                problems += _out_of_range(key, value, 0 if field.default == 0 else 1)
            elif field.name in values:
                written = list(value) if isinstance(value, tuple) else value
                problems.append(f"{key}={repr(written)[:40]} (must be {inspect.formatannotation(field.type)})")
        return problems

    def to_json(self) -> dict[str, Any]:
        """The published `config.json` of this network, with the fixed settings spelled out."""
        values = {self.RENAMED.get(f.name, f.name): getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**self.FIXED, **{k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}}


def check_config(config: Any, kind: type[NetworkConfig]) -> None:
    """Refuses what isn't a network's config.

    Raises:
        InterLCMError: so it is; says what it should be.
    """
    if not isinstance(config, kind):
        found, wanted = type(config).__name__, kind.__name__
        raise InterLCMError(
            f"config is a {found}, but must be a {wanted}; {wanted}.from_json reads a parsed config.json"
        )


def indivisible(name: str, values: Iterable[int], divisor: str, by: int) -> list[str]:
    """A line for each of a field's values that another field doesn't divide."""
    return [f"{name} has {value}, which {divisor}={by} doesn't divide" for value in values if value % by]


def _out_of_range(name: str, value: Any, least: int = 1) -> list[str]:
    if isinstance(value, tuple):
        if not 1 <= len(value) <= MOST_LEVELS:
            return [f"{name} has {len(value)} entries, but must have from 1 to {MOST_LEVELS}"]
        return [problem for each in value for problem in _out_of_range(name, each)]
    if isinstance(value, float):
        return number_problems(name, value, 1e-12, 1e12, float)
    if isinstance(value, int) and not isinstance(value, bool):
        several = any(word in name for word in ("layers", "blocks", "stacks", "depth"))
        return number_problems(name, value, least, MOST_LAYERS if several else MOST)
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
