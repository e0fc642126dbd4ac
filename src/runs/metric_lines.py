"""Metric lines: readable on stdout, and in the formats that both line collectors of Katib parse.

Each report is one line on stdout and one JSON object in metrics.jsonl:

    2026-01-01T00:00:00.123456Z epoch=1 step=120 val_loss=1.23457
    {"timestamp": "2026-01-01T00:00:00.123456Z", "epoch": "1", "step": "120", "val_loss": "1.23456789"}

The line is for people and for Katib, and has six significant digits; the file has them all.

Katib's StdOut collector reads every `name=number` and, as the time, a first word in RFC 3339. Its File collector
(JSON) reads top-level keys whose values are strings, and rejects a file with any line that is not JSON. A value that is
not finite would stall a whole search, so none is ever written.
"""

import itertools
import json
import logging
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, NamedTuple, SupportsFloat, TextIO

from config import files, parsing
from config.errors import InputError
from config.terminal import fold

logger = logging.getLogger(__name__)

NAME = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
# Katib's own expression (pkg/metricscollector/v1beta1/common/const.go).
KATIB_FILTER = r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)"
# Metrics of every run, in addition to those of its task.
TRAINING_METRICS = ("train_loss", "train_examples_per_second", "peak_memory_mib")

LINE_DIGITS = 6  # significant digits of numbers on stdout

_JSON_START = b'{"timestamp": "'  # of every line of `to_json`

# Functions that are called with each line that is written; `runs.push` adds one.
listeners: "list[Callable[[MetricLine], None]]" = []


class MetricLine(NamedTuple):
    """A report of metrics.

    Attributes:
        time: Time of the report, in UTC, to the microsecond.
        epoch: Epoch of the values.
        step: Number of optimiser steps.
        values: Finite metrics by name.
    """

    time: datetime
    epoch: int
    step: int
    values: dict[str, float]


def to_finite_metrics(values: Mapping[str, SupportsFloat]) -> dict[str, float]:
    """Convert metrics to floats (from tensors and numpy scalars, too).

    Raises:
        ValueError: A name is reserved or not of [A-Za-z0-9_-]+, or a value is not finite.
    """
    metrics: dict[str, float] = {}
    for name, value in values.items():
        if not NAME.fullmatch(name) or name in ("timestamp", "epoch", "step"):
            raise ValueError(
                f"{name!r} is not a valid metric name: use letters, digits, _ and - (not timestamp, epoch, step)"
            )
        number = float(value)
        if not math.isfinite(number):
            raise ValueError(f"the metric {name} is {number}: only finite values can be reported")
        metrics[name] = number
    return metrics


def round_metrics(values: Mapping[str, SupportsFloat], digits: int = 15) -> dict[str, float]:
    """Round metrics, by default to the 15 significant digits that every double holds: 100 * 0.0585 becomes 5.85.

    Args:
        values: Metrics by name.
        digits: Number of significant digits; 15 is C's DBL_DIG.

    Raises:
        ValueError: A metric is not valid; see `to_finite_metrics`.
    """
    metrics = to_finite_metrics(values)
    rounded = {name: float(f"{value:.{digits}g}") for name, value in metrics.items()}
    # The largest doubles would be rounded up to infinity.
    return {name: value if math.isfinite(value) else metrics[name] for name, value in rounded.items()}


def format_line(line: MetricLine) -> str:
    """Format a metric line, without a line break, with `LINE_DIGITS` significant digits.

    Raises:
        ValueError: A metric is not valid; see `to_finite_metrics`.
    """
    fields = _fields(line._replace(values=round_metrics(line.values, LINE_DIGITS)))
    return " ".join([format_time(line.time), *(f"{name}={text}" for name, text in fields.items())])


def to_json(line: MetricLine) -> str:
    """Format a metric line as a JSON object for Katib's File collector: all values are strings."""
    return json.dumps({"timestamp": format_time(line.time), **_fields(line)})


def from_json(text: str) -> MetricLine:
    """Parse the text of `to_json`.

    Raises:
        ValueError: The text is not a line of metrics.jsonl.
    """
    fields = json.loads(text)
    if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
        raise ValueError(f"not a line of metrics.jsonl: {text[:200]!r}")
    try:
        time, epoch, step = _parse_time(fields.pop("timestamp")), int(fields.pop("epoch")), int(fields.pop("step"))
    except KeyError as missing:
        raise ValueError(f"no {missing} in {text[:200]!r}") from None
    return MetricLine(time, epoch, step, to_finite_metrics({name: float(value) for name, value in fields.items()}))


def write(
    values: Mapping[str, SupportsFloat],
    epoch: int,
    step: int,
    stream: TextIO | None = None,
    jsonl_path: str | os.PathLike[str] | None = None,
    copy: str | os.PathLike[str] | None = None,
) -> MetricLine:
    """Report metrics: print a line and flush it, and append an object to the file, which is synced.

    Only rank zero may call this, because Katib counts lines.

    Args:
        values: Metrics by name.
        epoch: Epoch of the values.
        step: Number of optimiser steps.
        stream: Stream of the line; stdout by default.
        jsonl_path: metrics.jsonl, whose folder is created; None writes no file.
        copy: a second file with the same content, for a collector (`metrics_file` of the configuration).

    Returns:
        The line, with rounded metrics.

    Raises:
        ValueError: A metric is not valid (see `to_finite_metrics`); nothing is written.
        OSError: The file cannot be written; the line is already printed.
    """
    line = MetricLine(datetime.now(UTC), int(epoch), int(step), round_metrics(values))
    _print(format_line(line), sys.stdout if stream is None else stream)
    for path in (jsonl_path, copy):
        if path is not None:
            files.append_lines(path, [to_json(line)])
    for listener in listeners:
        listener(line)
    return line


def repeat(lines: Sequence[MetricLine], copy: str | os.PathLike[str] | None = None, show: bool = True) -> None:
    """Report lines of an earlier process of the same run again, with their own times.

    The collector of a new pod has seen nothing of the pod before it: with these lines its metric strategies, curves and
    early stopping are those of a run that was never interrupted.

    Args:
        lines: All lines of the run so far.
        copy: A second file, as in `write`. Lines that it has are kept; what follows them is removed.
        show: Whether to print them; false for a reader that has seen them.
    """
    for line in lines if show else ():
        _print(format_line(line), sys.stdout)
    if copy is not None:
        path = Path(copy)
        missing = lines[truncate_lines(path, _count_equal(path, lines)) :]
        files.append_lines(path, [to_json(line) for line in missing])
    for line in lines:
        for listener in listeners:
            listener(line)


def _count_equal(path: Path, lines: Sequence[MetricLine]) -> int:
    """Return the number of lines at the start of a file that are these lines; 0 unless it is a regular file."""
    if not path.is_file():
        return 0
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        pairs = zip(file, lines, strict=False)
        return next((index for index, (text, line) in enumerate(pairs) if text != to_json(line) + "\n"), len(lines))


def check_file(path: str | os.PathLike[str]) -> None:
    """Check a file that a new run is going to write from its start.

    Args:
        path: `metrics_file` of the configuration; a pipe or a device is only written to.

    Raises:
        InputError: It is empty text, a folder, has lines that are not metric lines, or cannot be written.
    """
    if not os.fspath(path):
        raise InputError("metrics_file is empty: name a file, or leave it out")

    def has_metric_lines(path: Path) -> bool:
        with path.open("rb") as file:
            # A killed process may leave an incomplete line.
            return all(line.startswith(_JSON_START[: len(line)]) for line in file)

    files.check_replaceable(path, has_metric_lines, "a metrics file", append=True)


def _print(text: str, stream: TextIO) -> None:
    """Print a line, folded on a terminal. A reader that has left (`| head`) ends no training: further lines go nowhere."""
    text = fold(text, stream)
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        logger.warning("stdout is closed: metric lines are no longer printed")
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def truncate_lines(path: str | os.PathLike[str], lines: int) -> int:
    """Truncate metrics.jsonl to its first lines, so that a resumed run repeats none.

    The file also ends before the first line that is damaged or incomplete: a killed process or a power cut left it. It is
    truncated in place, so that a collector that follows it keeps its handle.

    Args:
        path: metrics.jsonl; ignored unless it is a regular file.
        lines: Number of lines to keep.

    Returns:
        The number of lines left; less than `lines` if the file had fewer.
    """
    path = Path(path)
    if not path.is_file():
        return 0
    with path.open("r+b") as file:
        count, end = _count_valid(file, lines)
        if end < file.seek(0, os.SEEK_END):
            file.truncate(end)
    return count


def count_lines(path: str | os.PathLike[str]) -> int:
    """Return the number of lines of metrics.jsonl before the first one that is damaged or incomplete; 0 without a file."""
    path = Path(path)
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        return _count_valid(file)[0]


def _count_valid(file: IO[bytes], limit: int | None = None) -> tuple[int, int]:
    """Return the number of valid lines at the start of a file, at most `limit`, and the bytes in them."""
    count = end = 0
    for line in itertools.islice(file, limit):
        try:
            from_json(line.decode())
        except (ValueError, RecursionError):
            break
        if not line.endswith(b"\n"):
            break
        count, end = count + 1, end + len(line)
    return count, end


def read(path: str | os.PathLike[str]) -> list[MetricLine]:
    """Read all complete lines of metrics.jsonl, oldest first.

    Raises:
        ValueError: A line is not valid; the message has its number.
        OSError: The file cannot be read.
    """
    lines = []
    parsing.check_regular(path)
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
    # repr gives the shortest decimal that parses to the same float, and only what Katib's filter can read.
    values = {name: repr(value) for name, value in to_finite_metrics(line.values).items()}
    return {"epoch": str(line.epoch), "step": str(line.step), **values}


def format_time(time: datetime) -> str:
    """Format a time in UTC, to the microsecond."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _parse_time(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
