"""Types and ranges of settings: annotations for signatures, rules, and the check of a value.

A class declares the settings that it takes in its signature, where `config.signatures` reads them:

    def __init__(
        self,
        max_length: Annotated[int, Range(low=8, high=1_000_000)] = 384,
        dropout: Annotated[float, Range(low=0, below=1)] | None = None,
        verify: Literal["fast", "full"] = "fast",
        sample: Annotated[Mapping[str, Any] | None, Keys("datamodules.samples.settings.Questions")] = None,
    ) -> None: ...
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from config.numbers import format_number

_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "bool": ((bool,), "true or false"),
    "str": ((str,), "text"),
    "list": ((list, tuple), "a list"),
    "map": ((Mapping,), "a mapping"),
}


@dataclass(frozen=True, kw_only=True)
class Range:
    """Bounds of a number, for an annotation.

    Attributes:
        low: Lower bound, inclusive.
        high: Upper bound, inclusive.
        above: Lower bound, exclusive.
        below: Upper bound, exclusive.
        also: Single values that are valid outside the bounds (e.g. -1 for "no limit").
    """

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    also: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Keys:
    """The keys of a mapping, for an annotation: the arguments of a function or class.

    Attributes:
        target: Dotted name of the function or class.
        excluded: Arguments that are not settings because the caller provides them.
    """

    target: str
    excluded: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rule:
    """The valid values of one key.

    Attributes:
        types: Valid types ("int", "float", "bool", "str", "list", "map"); an int is valid as a float.
        range: Bounds of numbers.
        choices: The only valid values, if there are any.
        optional: Whether null is valid.
        keys: Keys of a mapping.
    """

    types: tuple[str, ...]
    range: Range = Range()
    choices: tuple[Any, ...] = ()
    optional: bool = False
    keys: Keys | None = None


def check_key(key: str, value: Any, rule: Rule) -> str:
    """Return the finding on the value of a key, as `key=value: must be ...`; "" if it is valid."""
    problem = check_value(value, rule)
    return f"{key}={'null' if value is None else value}: {problem}" if problem else ""


def check_value(value: Any, rule: Rule) -> str:
    """Return the finding on a value, as `must be ...`; "" if it is valid."""
    if value is None:
        return "" if rule.optional else f"must be {describe_rule(rule)}"
    if value in rule.range.also and type(value) in (int, float, str):
        return ""
    if not any(_has_type(value, name) for name in rule.types) or (rule.choices and value not in rule.choices):
        return f"must be {describe_rule(rule)}"
    if isinstance(value, float) and not math.isfinite(value):
        return "must be finite"
    if isinstance(value, int) and abs(value) >= 2**63:
        return "must be a number of at most 64 bits"
    if isinstance(value, int | float) and not isinstance(value, bool) and not _in_range(value, rule.range):
        return f"must be {describe_rule(rule)}"
    return ""


def describe_rule(rule: Rule) -> str:
    """Return the valid values in words: `a whole number, at least 8 or null`."""
    bounds = rule.range
    if rule.choices:
        text = " or ".join(dict.fromkeys(_spell(choice) for choice in rule.choices))
    else:
        text = " or ".join(_TYPES[name][1] for name in rule.types)
        low = f"above {format_number(bounds.above)}" if bounds.above is not None else ""
        low = f"at least {format_number(bounds.low)}" if bounds.low is not None else low
        high = f"below {format_number(bounds.below)}" if bounds.below is not None else ""
        high = f"at most {format_number(bounds.high)}" if bounds.high is not None else high
        limits = " and ".join(bound for bound in (low, high) if bound)
        text = f"{text}, {limits}" if limits else text
    extra = [str(value) for value in bounds.also] + (["null"] if rule.optional else [])
    return " or ".join(part for part in (text, *extra) if part)


def _spell(choice: Any) -> str:
    """Spell a choice as YAML does."""
    return str(choice).lower() if isinstance(choice, bool) else str(choice)


def _in_range(value: float, bounds: Range) -> bool:
    return (
        (bounds.low is None or value >= bounds.low)
        and (bounds.above is None or value > bounds.above)
        and (bounds.high is None or value <= bounds.high)
        and (bounds.below is None or value < bounds.below)
    )


def _has_type(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "bool"
    return isinstance(value, _TYPES[name][0])
