"""What Katib's metrics collector makes of a trial's output (cmd/metricscollector and the trial controller, v0.19)."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

UNAVAILABLE = "unavailable"
NO_TIME = "0001-01-01T00:00:00Z"
# As Go's time.RFC3339Nano parses: a zone is needed.
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)")
_GO_FLOAT = re.compile(r"[+-]?(\d+(_?\d)*\.?\d*|\.\d+)([eE][+-]?\d+)?")


class Unreadable(Exception):
    """The collector would end with an error, and the trial fail."""


@dataclass(frozen=True)
class Entry:
    """One reported value: time in RFC 3339, name, value as text."""

    time: str
    name: str
    value: str


@dataclass(frozen=True)
class StopRule:
    """An early-stopping rule: stop when the objective's best so far is worse than `value`, from `start_step` reports on."""

    metric: str
    value: float
    comparison: str
    start_step: int


def parse(text: str, metrics: Sequence[str], style: str, filters: Sequence[str]) -> list[Entry]:
    """All values of a metrics file; one `unavailable` if the objective is not among them.

    Args:
        text: the file.
        metrics: the objective, then the additional metrics.
        style: TEXT or JSON.
        filters: regular expressions, for TEXT.

    Raises:
        Unreadable: in JSON, a line that is not an object.
    """
    entries = [entry for line in text.split("\n") for entry in parse_line(line, metrics, style, filters)]
    if not any(entry.name == metrics[0] for entry in entries):
        return [Entry(NO_TIME, metrics[0], UNAVAILABLE)]
    return entries


def parse_line(line: str, metrics: Sequence[str], style: str, filters: Sequence[str]) -> list[Entry]:
    """The values in one line."""
    if style == "JSON":
        return _json_line(line, metrics)
    if not any(metric in line for metric in metrics):
        return []
    first, space, _ = line.partition(" ")
    time = first if space and go_time(first) is not None else NO_TIME
    found = []
    for expression in filters:
        for match in re.finditer(expression, line, re.ASCII):
            if match.re.groups >= 2 and (match[1] or "").strip() in metrics:
                found.append(Entry(time, match[1].strip(), (match[2] or "").strip()))
    return found


def _json_line(line: str, metrics: Sequence[str]) -> list[Entry]:
    if not line:
        return []
    try:
        fields = json.loads(line, parse_constant=_refuse)
    except ValueError as error:
        raise Unreadable(f"the metrics file has a line that is not JSON: {line[:80]!r}") from error
    if not isinstance(fields, dict):
        raise Unreadable(f"the metrics file has a line that is no JSON object: {line[:80]!r}")
    time = _json_time(fields.get("timestamp"))
    # Values must be texts: Katib passes numbers over.
    return [Entry(time, name, fields[name]) for name in metrics if isinstance(fields.get(name), str)]


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _json_time(value: Any) -> str:
    if isinstance(value, str):
        return value if go_time(value) is not None else NO_TIME
    if isinstance(value, int | float) and not isinstance(value, bool):
        # Katib reads the digits after the point as a count of nanoseconds: .5 is 5 of them.
        whole, _, digits = f"{value:f}".rstrip("0").rstrip(".").partition(".")
        try:
            moment = datetime.fromtimestamp(int(whole), UTC).strftime("%Y-%m-%dT%H:%M:%S")
        except (ValueError, OverflowError, OSError):
            return NO_TIME  # milliseconds, say: a year that Go writes with five digits, and nobody reads
        return f"{moment}.{int(digits or 0):09d}Z"
    return NO_TIME


def go_time(text: str) -> tuple[float, int] | None:
    """Seconds since 1970 (whole) and nanoseconds of a time as Go's RFC3339Nano reads it; None for anything else."""
    found = _TIME.fullmatch(text)
    if not found:
        return None
    zone = "+00:00" if found[8] == "Z" else found[8]
    try:
        whole = datetime.fromisoformat(f"{text[:19]}{zone}").timestamp()
    except ValueError:
        return None
    return whole, int(((found[7] or ".0")[1:] + "0" * 9)[:9])


def go_float(text: str) -> float | None:
    """A number as Go's ParseFloat reads it, nan and inf included; None for anything else."""
    if text.lower().lstrip("+-") in ("nan", "inf", "infinity"):
        return float(text)
    return float(text) if _GO_FLOAT.fullmatch(text) else None


def observation(entries: Iterable[Entry], names: Iterable[str]) -> dict[str, dict[str, str]]:
    """min, max and latest of each metric, as texts; `unavailable` where there is none.

    The latest goes by time; among equals the later report.
    """
    metrics = {name: {"min": UNAVAILABLE, "max": UNAVAILABLE, "latest": UNAVAILABLE} for name in names}
    times: dict[str, tuple[float, int]] = {}
    for entry in entries:
        if (metric := metrics.get(entry.name)) is None:
            continue
        value = go_float(entry.value)
        if value is not None:
            if metric["min"] == UNAVAILABLE:
                metric["min"] = metric["max"] = entry.value
            elif value < float(metric["min"]):
                metric["min"] = entry.value
            elif value > float(metric["max"]):
                metric["max"] = entry.value
        time = go_time(entry.time) or (-math.inf, 0)
        if entry.name not in times or not times[entry.name] > time:
            times[entry.name] = time
            metric["latest"] = entry.value
    return metrics


def chosen(metric: Mapping[str, str], strategy: str) -> str:
    """The text of the value that a strategy takes."""
    value = metric[strategy if strategy in metric else "latest"]
    return metric["latest"] if value == UNAVAILABLE else value


class EarlyStopper:
    """Follows a trial's lines and tells when its early-stopping rule is met."""

    def __init__(self, rule: StopRule, maximize: bool, filters: Sequence[str], style: str) -> None:
        self.rule, self.maximize, self.filters, self.style = rule, maximize, filters, style
        self.best: float | None = None
        self.left = rule.start_step

    def stops(self, line: str) -> bool:
        """Takes one line.

        Returns:
            Whether the trial is to be stopped now.

        Raises:
            Unreadable: Katib's collector would end here, and the trial with it.
        """
        for text in self._values(line):
            value = go_float(text)
            if value is None:
                raise Unreadable(f"{self.rule.metric} is {text!r}, which is no number")
            better = self.best is None or (value > self.best if self.maximize else value < self.best)
            self.best = value if better or self.best is None else self.best
            if self.left:
                self.left -= 1
                if self.left:
                    continue
            if self.best < self.rule.value if self.rule.comparison == "less" else self.best > self.rule.value:
                return True
        return False

    def _values(self, line: str) -> list[str]:
        if self.style == "JSON":
            return [entry.value for entry in _json_line(line, [self.rule.metric])]
        if self.rule.metric not in line:
            return []
        found = []
        for expression in self.filters:
            for match in re.finditer(expression, line, re.ASCII):
                if match.re.groups < 2:
                    continue
                # Every value in such a line must be a number, whosever it is.
                if go_float((match[2] or "").strip()) is None:
                    raise Unreadable(f"{match[1]} is {match[2]!r}, which is no number")
                if (match[1] or "").strip() == self.rule.metric:
                    found.append((match[2] or "").strip())
        return found


def medianstop(
    histories: Iterable[Sequence[float]], metric: str, maximize: bool, least: int, start: int
) -> StopRule | None:
    """Katib's medianstop: the mean, over the trials that succeeded, of the mean of their first values.

    Args:
        histories: the objective's values of each succeeded trial, by time.
        metric: the objective.
        maximize: its direction.
        least: trials that must have succeeded (min_trials_required).
        start: reports that count of each trial (start_step).
    """
    means = [sum(values[:start]) / len(values[:start]) for values in histories if values]
    if len(means) < least:
        return None
    return StopRule(metric, sum(means) / len(means), "less" if maximize else "greater", start)
