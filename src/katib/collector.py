"""Katib's metrics collector and trial controller: from a trial's output to its observation (v0.19).

Sources: cmd/metricscollector, pkg/metricscollector and pkg/controller.v1beta1/trial of kubeflow/katib.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from katib.metric_filter import find_values

UNAVAILABLE = "unavailable"
NO_TIME = "0001-01-01T00:00:00Z"
# Go's time.RFC3339Nano: a zone is required.
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
# Numbers of strconv.ParseFloat: decimal, hexadecimal, and words; an underscore is between two digits.
_DIGITS, _HEX = r"\d+(?:_\d+)*", r"[\da-fA-F]+(?:_[\da-fA-F]+)*"
_DECIMAL = re.compile(rf"[+-]?(?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:[eE][+-]?{_DIGITS})?", re.ASCII)
_HEXADECIMAL = re.compile(rf"[+-]?0[xX](?:_?{_HEX}(?:\.(?:{_HEX})?)?|\.{_HEX})[pP][+-]?{_DIGITS}", re.ASCII)
_WORD = re.compile(r"[+-]?inf(?:inity)?|nan", re.IGNORECASE | re.ASCII)


class UnreadableMetrics(Exception):
    """Metrics on which Katib's collector exits with an error, so that the trial fails."""


@dataclass(frozen=True)
class Entry:
    """A reported value: time in RFC 3339, name of the metric, value as text."""

    time: str
    name: str
    value: str


@dataclass(frozen=True)
class StopRule:
    """An early-stopping rule.

    From the `start_step`-th report on, a trial stops when its best value so far compares (`less` or `greater`) to `value`.
    """

    metric: str
    value: float
    comparison: str
    start_step: int


def parse_metrics(text: str, metrics: Sequence[str], style: str, filters: Sequence[str]) -> list[Entry]:
    """Parse a metrics file.

    Args:
        text: content of the file.
        metrics: the objective, then the additional metrics.
        style: TEXT or JSON.
        filters: regular expressions, for TEXT.

    Returns:
        All reported values; a single `unavailable` if the objective is not among them.

    Raises:
        UnreadableMetrics: in JSON, a line is not an object.
    """
    entries = [entry for line in text.split("\n") for entry in parse_line(line, metrics, style, filters)]
    if not any(entry.name == metrics[0] for entry in entries):
        return [Entry(NO_TIME, metrics[0], UNAVAILABLE)]
    return entries


def parse_line(line: str, metrics: Sequence[str], style: str, filters: Sequence[str]) -> list[Entry]:
    """Parse one line of a metrics file; see `parse_metrics`."""
    if style == "JSON":
        return _parse_json_line(line, metrics)
    if not any(metric in line for metric in metrics):
        return []
    word, space, _ = line.partition(" ")
    time = word if space and parse_go_time(word) is not None else NO_TIME
    return [Entry(time, name, value) for name, value in _iter_values(line, filters) if name in metrics]


def _iter_values(line: str, filters: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Return name and value of every match of the filters in a line."""
    return (pair for expression in filters for pair in find_values(expression, line))


def _parse_json_line(line: str, metrics: Sequence[str]) -> list[Entry]:
    if not line:
        return []
    try:
        fields = json.loads(line, parse_constant=_refuse_constant, parse_float=_json_number, parse_int=_json_number)
    except (ValueError, RecursionError) as error:
        raise UnreadableMetrics(f"the metrics file has a line that is not JSON: {line[:80]!r}") from error
    if fields is None:
        fields = {}  # Go decodes null as an object without keys
    if not isinstance(fields, dict):
        raise UnreadableMetrics(f"the metrics file has a line that is not a JSON object: {line[:80]!r}")
    time = _json_time(fields.get("timestamp"))
    # Katib ignores values that are numbers.
    return [Entry(time, name, fields[name]) for name in metrics if isinstance(fields.get(name), str)]


def _refuse_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _json_number(text: str) -> float:
    """Parse a number as Go, which decodes every number to a float64 and refuses one that is too large."""
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is too large")
    return value


def _json_time(value: Any) -> str:
    if isinstance(value, str):
        return value if parse_go_time(value) is not None else NO_TIME
    if isinstance(value, float):
        # Katib reads the digits after the point as a number of nanoseconds: .5 is 5 of them.
        seconds, _, digits = format_go_float(value).partition(".")
        nanoseconds = int(digits or 0)
        try:
            time = datetime.fromtimestamp(int(seconds) + nanoseconds // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        except (ValueError, OverflowError, OSError):
            return NO_TIME  # milliseconds, e.g.: Go writes the year with five digits, which nothing parses
        return f"{time}.{nanoseconds % 10**9:09d}Z"
    return NO_TIME


def parse_go_time(text: str) -> tuple[float, int] | None:
    """Parse a time as Go's RFC3339Nano; None if it is invalid.

    Returns:
        Seconds since 1970 (an integer) and nanoseconds.
    """
    match = _TIME.fullmatch(text)
    if not match:
        return None
    zone = "+00:00" if match[8] == "Z" else match[8]
    try:
        seconds = datetime.fromisoformat(f"{text[:19]}{zone}").timestamp()
    except ValueError:
        return None
    return seconds, int(((match[7] or ".0")[1:] + "0" * 9)[:9])


def parse_go_float(text: str) -> float | None:
    """Parse a number as Go's ParseFloat, nan and inf included; None if it is invalid or too large."""
    if _WORD.fullmatch(text):
        return float(text)
    if _HEXADECIMAL.fullmatch(text):
        try:
            return float.fromhex(text.replace("_", ""))
        except OverflowError:
            return None
    value = float(text) if _DECIMAL.fullmatch(text) else math.inf
    return None if math.isinf(value) else value


def format_go_float(value: float) -> str:
    """Format a finite number as Go's FormatFloat(value, 'f', -1, 64): the shortest digits, without an exponent."""
    text = f"{Decimal(repr(value)):f}"
    return text.removesuffix(".0")


def aggregate(entries: Sequence[Entry], names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Aggregate reported values to a trial's observation.

    Args:
        entries: reported values.
        names: metrics to aggregate.

    Returns:
        min, max and latest of each metric as text; `unavailable` without a value. The latest is by time, and the last
        one reported among equal times.
    """

    def number(text: str) -> float:
        return parse_go_float(text) or 0.0

    observation = {}
    for name in names:
        reported = [entry for entry in entries if entry.name == name]
        numbers = [entry.value for entry in reported if parse_go_float(entry.value) is not None]
        by_time = sorted(reported, key=lambda entry: parse_go_time(entry.time) or (-math.inf, 0))
        observation[name] = {
            "min": min(numbers, key=number, default=UNAVAILABLE),
            "max": max(numbers, key=number, default=UNAVAILABLE),
            "latest": by_time[-1].value if by_time else UNAVAILABLE,
        }
    return observation


def apply_strategy(metric: Mapping[str, str], strategy: str) -> str:
    """Return the value of a metric by a strategy, as text.

    Args:
        metric: its min, max and latest.
        strategy: min, max or latest.
    """
    value = metric[strategy if strategy in metric else "latest"]
    return metric["latest"] if value == UNAVAILABLE else value


class EarlyStopper:
    """Applies an early-stopping rule to a trial's lines as they come."""

    def __init__(self, rule: StopRule, maximize: bool, filters: Sequence[str], style: str) -> None:
        self.rule, self.maximize, self.filters, self.style = rule, maximize, filters, style
        self.best: float | None = None
        self.remaining = rule.start_step

    def update(self, line: str) -> bool:
        """Process one line.

        Returns:
            Whether to stop the trial.

        Raises:
            UnreadableMetrics: Katib's collector would exit with an error, and the trial fail.
        """
        for text in self._values(line):
            value = parse_go_float(text)
            if value is None:
                raise UnreadableMetrics(f"{self.rule.metric} is not a number: {text!r}")
            self.best = value if self.best is None else (max if self.maximize else min)(self.best, value)
            self.remaining = max(0, self.remaining - 1)
            worse = self.best < self.rule.value if self.rule.comparison == "less" else self.best > self.rule.value
            if worse and not self.remaining:
                return True
        return False

    def _values(self, line: str) -> list[str]:
        if self.style == "JSON":
            if not line:
                raise UnreadableMetrics("the metrics file has an empty line, which is not JSON")
            return [entry.value.strip() for entry in _parse_json_line(line, [self.rule.metric])]
        if self.rule.metric not in line:
            return []
        values = []
        for name, text in _iter_values(line, self.filters):
            # Katib parses every value of such a line, also those of other metrics.
            if parse_go_float(text) is None:
                raise UnreadableMetrics(f"{name} is not a number: {text!r}")
            if name == self.rule.metric:
                values.append(text)
        return values


def medianstop_rule(
    histories: Iterable[Sequence[float]], metric: str, maximize: bool, min_trials: int, start_step: int
) -> StopRule | None:
    """Return the rule of Katib's medianstop: the mean, over succeeded trials, of the mean of their first values.

    Args:
        histories: the objective's values of each succeeded trial, by time.
        metric: the objective.
        maximize: whether a higher objective is better.
        min_trials: number of succeeded trials that it needs (min_trials_required).
        start_step: number of values of each trial that count.

    Returns:
        None if too few trials have succeeded.
    """
    means = [sum(values[:start_step]) / len(values[:start_step]) for values in histories if values]
    if len(means) < min_trials:
        return None
    return StopRule(metric, sum(means) / len(means), "less" if maximize else "greater", start_step)
