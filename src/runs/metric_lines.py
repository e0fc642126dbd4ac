"""Metric lines: what a person reads, and what both of Katib's line collectors parse.

One line on stdout, and the same as one JSON object in metrics.jsonl:

    2026-01-01T00:00:00.123456Z epoch=1 step=120 val_loss=1.2345
    {"timestamp": "2026-01-01T00:00:00.123456Z", "epoch": "1", "step": "120", "val_loss": "1.2345"}

Katib's StdOut collector takes every `name=number` and, for the time, a first word in RFC 3339. Its File
collector (JSON) takes top-level keys whose values are strings, and gives up on a file with any line that is
not JSON. A value that is not finite stalls a whole search, so none is ever written.
"""

import json
import math
import os
import re
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, SupportsFloat, TextIO

NAME = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
# Katib's own expression (pkg/metricscollector/v1beta1/common/const.go), for whoever reads lines as Katib
# does.
KATIB_FILTER = r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)"
# What every run reports beside the metrics of its task.
TRAINING_METRICS = ("train_loss", "train_examples_per_second", "peak_memory_mib")
_LINE = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) epoch=(?P<epoch>\d+) step=(?P<step>\d+)"
    r"(?P<values>( [^ ]+=[^ ]+)*)"
)


# Who else is told of each line that is written, in order; `runs.push` puts itself here.
listeners: "list[Callable[[MetricLine], None]]" = []


class MetricLine(NamedTuple):
    """One report of metrics.

    Attributes:
        time: when, in UTC, to the microsecond.
        epoch: epochs finished or begun, as the reporter counts them.
        step: optimiser steps done.
        values: metric by name; finite.
    """

    time: datetime
    epoch: int
    step: int
    values: dict[str, float]


def to_finite_metrics(values: Mapping[str, SupportsFloat]) -> dict[str, float]:
    """The metrics as plain floats (tensors and numpy scalars too).

    Raises:
        ValueError: a name outside [A-Za-z0-9_-]+, a reserved name, or a value that is not finite.
    """
    plain: dict[str, float] = {}
    for name, value in values.items():
        if not NAME.fullmatch(name) or name in ("timestamp", "epoch", "step"):
            raise ValueError(
                f"{name!r} cannot name a metric: use letters, digits, _ and - (not timestamp, epoch, step)"
            )
        number = float(value)
        if not math.isfinite(number):
            raise ValueError(f"the metric {name} is {number}: a value that is not finite is never reported")
        plain[name] = number
    return plain


def format_line(line: MetricLine) -> str:
    """The line as text, without a line break. Numbers are printed so that reading gives the very same float.

    Raises:
        ValueError: as `checked`.
    """
    return " ".join([_stamp(line.time), *(f"{name}={text}" for name, text in _fields(line).items())])


def parse_line(text: str) -> MetricLine:
    """Reads what `format` writes.

    Raises:
        ValueError: anything else.
    """
    match = _LINE.fullmatch(text.rstrip("\r\n"))
    if match is None:
        raise ValueError(f"not a metric line: {text[:200]!r}")
    words = [word.rpartition("=") for word in match["values"].split()]
    values = to_finite_metrics({name: float(number) for name, _, number in words})
    return MetricLine(_time(match["time"]), int(match["epoch"]), int(match["step"]), values)


def to_json(line: MetricLine) -> str:
    """The line as one JSON object in the dialect of Katib's File collector: all values strings."""
    return json.dumps({"timestamp": _stamp(line.time), **_fields(line)})


def from_json(text: str) -> MetricLine:
    """Reads what `to_json` writes.

    Raises:
        ValueError: anything else.
    """
    fields = json.loads(text)
    if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
        raise ValueError(f"not a line of metrics.jsonl: {text[:200]!r}")
    try:
        time, epoch, step = _time(fields.pop("timestamp")), int(fields.pop("epoch")), int(fields.pop("step"))
    except KeyError as missing:
        raise ValueError(f"no {missing} in {text[:200]!r}") from None
    return MetricLine(time, epoch, step, to_finite_metrics({name: float(value) for name, value in fields.items()}))


def write(
    values: Mapping[str, SupportsFloat],
    epoch: int,
    step: int,
    stream: TextIO | None = None,
    jsonl_path: str | os.PathLike[str] | None = None,
) -> MetricLine:
    """Reports metrics now: one flushed line on the stream, one object appended to the file.

    Only rank zero may call it: Katib counts lines.

    Args:
        values: metric by name.
        epoch: epoch of the values.
        step: optimiser steps done.
        stream: where the line goes; stdout if not given.
        jsonl_path: metrics.jsonl; its folder is made. None writes no file.

    Returns:
        What was written.

    Raises:
        ValueError: as `checked`, and then nothing is written.
        OSError: the file cannot be written (the line is out by then).
    """
    line = MetricLine(datetime.now(UTC), int(epoch), int(step), to_finite_metrics(values))
    print(format_line(line), file=sys.stdout if stream is None else stream, flush=True)
    if jsonl_path is not None:
        path = Path(jsonl_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(to_json(line) + "\n")
    for tell in listeners:
        tell(line)
    return line


def count_lines(path: str | os.PathLike[str]) -> int:
    """Whole lines in metrics.jsonl: what a checkpoint remembers for `cut_back`. 0 if there is no file."""
    try:
        with Path(path).open("rb") as file:
            return sum(1 for line in file if line.endswith(b"\n"))
    except FileNotFoundError:
        return 0


def truncate_lines(path: str | os.PathLike[str], lines: int) -> int:
    """Keeps the first lines of metrics.jsonl, so that a resumed run repeats none; a torn last line goes too.

    The file is shortened in place: a collector that follows it keeps its handle.

    Args:
        path: metrics.jsonl; nothing happens where there is none (or where it is a device or a pipe).
        lines: how many lines to keep.

    Returns:
        How many there are now; fewer than asked for if the file had fewer.
    """
    path = Path(path)
    if not path.is_file():
        return 0
    kept = end = 0
    with path.open("r+b") as file:
        for line in file:
            if kept == lines or not line.endswith(b"\n"):
                break
            kept, end = kept + 1, end + len(line)
        file.truncate(end)
    return kept


def read(path: str | os.PathLike[str]) -> list[MetricLine]:
    """All whole lines of a metrics.jsonl, oldest first. A torn last line is left out.

    Raises:
        ValueError: a line that is not one of ours, by its number.
        OSError: the file cannot be read.
    """
    lines = []
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                lines.append(from_json(line.decode()))
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
    return lines


def _fields(line: MetricLine) -> dict[str, str]:
    # repr gives the shortest decimal that reads back as the same float, and nothing that Katib's filter
    # cannot read.
    values = {name: repr(value) for name, value in to_finite_metrics(line.values).items()}
    return {"epoch": str(line.epoch), "step": str(line.step), **values}


def _stamp(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _time(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
