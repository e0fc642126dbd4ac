"""The table of `python -m runs list`: on a terminal, with the columns that tell the runs apart, or as CSV."""

import csv
import io
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from config.terminal import format_duration, format_table, format_value, make_printable, shorten, text_width
from runs import hyperparameters
from runs.listing import check_name, field_value

_FIELDS = ("status", "model", "data", "time")
_LIMITS = {"status": 16, "model": 16, "data": 16}
_PARAMETER_LIMIT = 24  # columns of a hyperparameter's value
_RUN_WIDTH = 16  # columns of a run's folder at least

Row = Mapping[str, Any]


def format_runs(rows: Sequence[Row], width: int, columns: Sequence[str] = ()) -> str:
    """Format summaries as a table; the folder is shortened, and columns are left out, so that it fits.

    The folder and the metric are always visible. By default the fields and hyperparameters that differ come first, then
    the fields that do not.

    Args:
        rows: Summaries of `runs.listing`, at least one.
        width: Columns of the terminal.
        columns: Fields, metrics or keys of the configuration to show in place of the default.

    Raises:
        InputError: No run has such a field.
    """
    for name in columns:
        check_name(rows, name)
    names = list(columns) or _default_columns(rows)
    metric = [_metric(row) for row in rows]
    cells = {name: [_cell(row, name) for row in rows] for name in names}
    titles = _titles(names)
    run = [make_printable(row["folder"]) for row in rows]
    free = width - min(_RUN_WIDTH, max(map(text_width, ["run", *run]))) - max(map(text_width, ["metric", *metric])) - 2
    visible = []
    for name in names:
        needed = max(text_width(text) for text in [titles[name], *cells[name]]) + 2
        if needed <= free:
            visible.append(name)
            free -= needed
    if not columns:  # in the order of reading: the setting, its result, its time
        visible.sort(key=lambda name: _FIELDS.index(name) if name in _FIELDS[:-1] else 3 + (name == "time"))
    before = [name for name in visible if columns or name != "time"]
    after = [] if columns or "time" not in visible else ["time"]
    header = ["run", *(titles[name] for name in before), "metric", *after]
    table = zip(run, *(cells[name] for name in before), metric, *(cells[name] for name in after), strict=True)
    text = format_table(header, [list(row) for row in table], width, limit=width)
    left_out = [name for name in names if name not in visible and name not in _FIELDS] if not columns else []
    left_out += [name for name in columns if name not in visible]
    if not left_out:
        return text
    note = f"no space for {', '.join(left_out)}: choose with --columns NAME,NAME, or print all with --csv"
    return f"{text}\n\n{textwrap.fill(make_printable(note), width, break_on_hyphens=False)}"


def format_csv(rows: Sequence[Row], columns: Sequence[str] = ()) -> str:
    """Return summaries as CSV with a header: by default all fields and metrics, and the hyperparameters that differ.

    Raises:
        InputError: No run has such a field.
    """
    for name in columns:
        check_name(rows, name)
    metrics = sorted({name for row in rows for name in row["metrics"]})
    fields = [name for name in (rows[0] if rows else ()) if name not in ("metrics", "parameters", "overridden")]
    names = ["folder", *columns] if columns else [*fields, *metrics, *hyperparameters.differing(rows)]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        values = [field_value(row, name) for name in names]
        writer.writerow(["" if value is None else value for value in values])
    return stream.getvalue().rstrip("\n")


def _default_columns(rows: Sequence[Row]) -> list[str]:
    """Fields and hyperparameters, those that differ between the runs first; the time after them."""
    varying = [name for name in _FIELDS[:-1] if len({_cell(row, name) for row in rows}) > 1]
    constant = [name for name in _FIELDS[:-1] if name not in varying]
    return [*varying, *hyperparameters.differing(rows), "time", *constant]


def _titles(names: Sequence[str]) -> dict[str, str]:
    """The last word of each key where it is the only one that ends with it."""
    words = Counter(name.rpartition(".")[2] for name in names)
    short = {name: name.rpartition(".")[2] for name in names}
    return {name: make_printable(word if words[word] == 1 else name) for name, word in short.items()}


def _metric(row: Row) -> str:
    return make_printable(f"{row['monitor']} {format_value(row['value'])}" if row["value"] is not None else "-")


def _cell(row: Row, name: str) -> str:
    if name == "time":
        return format_duration(row["duration_seconds"])
    value = field_value(row, name)
    if value is None and name not in row["parameters"]:
        return "-"
    text = format_value(value) if isinstance(value, int | float) else hyperparameters.text(value)
    text = "null" if value is None else make_printable(text if not isinstance(value, bool) else text.lower())
    return shorten(text, _LIMITS.get(name, _PARAMETER_LIMIT))
