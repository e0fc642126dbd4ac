"""What a setting may be: ranges for annotations, rules, and the one wording of what is expected.

A class that takes settings declares them in its own signature, and `config.signatures` reads them from there:

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

_NAMES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list": "a list",
    "map": "a mapping",
}


@dataclass(frozen=True, kw_only=True)
class Range:
    """Bounds of a number, in an annotation.

    Attributes:
        low: lower bound, inclusive.
        high: upper bound, inclusive.
        above: lower bound, exclusive.
        below: upper bound, exclusive.
        also: single values allowed beside these (e.g. -1 for "no limit").
    """

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    also: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Keys:
    """The keys of a mapping, in an annotation: those that a function or class takes.

    Attributes:
        target: dotted name of the function or class.
        given: its arguments that are no settings, because its caller gives them.
    """

    target: str
    given: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rule:
    """One key's values.

    Attributes:
        types: what it may be ("int", "float", "bool", "str", "list", "map"); an int passes as a float.
        range: bounds of numbers.
        choices: the only values allowed, if any.
        optional: whether null is allowed.
        keys: of a mapping.
    """

    types: tuple[str, ...]
    range: Range = Range()
    choices: tuple[Any, ...] = ()
    optional: bool = False
    keys: Keys | None = None


def check_key(key: str, value: Any, rule: Rule) -> str:
    """What is wrong with the value of a key, as `key=value: must be ...`; "" where nothing is."""
    wrong = check_value(value, rule)
    return f"{key}={'null' if value is None else value}: {wrong}" if wrong else ""


def check_value(value: Any, rule: Rule) -> str:
    """What is wrong with a value, as `must be ...`; "" where nothing is."""
    if value is None:
        return "" if rule.optional else f"must be {describe_rule(rule)}"
    if value in rule.range.also and type(value) in (int, float, str):
        return ""
    if not any(_is(value, kind) for kind in rule.types) or (rule.choices and value not in rule.choices):
        return f"must be {describe_rule(rule)}"
    if isinstance(value, float) and not math.isfinite(value):
        return "must be finite"
    if isinstance(value, int | float) and not isinstance(value, bool) and not _inside(value, rule.range):
        return f"must be {describe_rule(rule)}"
    return ""


def describe_rule(rule: Rule) -> str:
    """What a value must be, in words: `a whole number, at least 8 or null`."""
    bounds = rule.range
    if rule.choices:
        text = " or ".join(str(choice) for choice in rule.choices)
    else:
        text = " or ".join(_NAMES[kind] for kind in rule.types)
        low = f"above {bounds.above:g}" if bounds.above is not None else ""
        low = f"at least {bounds.low:g}" if bounds.low is not None else low
        high = f"below {bounds.below:g}" if bounds.below is not None else ""
        high = f"at most {bounds.high:g}" if bounds.high is not None else high
        limits = " and ".join(bound for bound in (low, high) if bound)
        text = f"{text}, {limits}" if limits else text
    extra = [str(value) for value in bounds.also] + (["null"] if rule.optional else [])
    return " or ".join(part for part in (text, *extra) if part)


def _inside(value: float, bounds: Range) -> bool:
    return (
        (bounds.low is None or value >= bounds.low)
        and (bounds.above is None or value > bounds.above)
        and (bounds.high is None or value <= bounds.high)
        and (bounds.below is None or value < bounds.below)
    )


def _is(value: Any, kind: str) -> bool:
    if kind == "bool":
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    types: dict[str, tuple[type, ...]] = {
        "int": (int,),
        "float": (int, float),
        "str": (str,),
        "list": (list, tuple),
        "map": (Mapping,),
    }
    return isinstance(value, types[kind])
