"""The page of several runs: a table to sort and filter, and how runs on the same data compare."""

import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from config.errors import InputError
from config.numbers import format_count
from config.terminal import format_duration, format_timestamp
from reports import page
from reports.charts import Series
from reports.page import Cell, format_rounded
from runs import hyperparameters, prediction_table, report, report_metrics, sweep
from runs.fields import is_number

CURVES = 8  # runs at most whose curves are drawn
PARAMETERS = 8  # columns of hyperparameters at most
COLUMNS = [
    ("run", "id"), ("status", "badge"), ("model", "id"), ("data", "id"), ("metric", "nowrap"), ("value", "number"),
]  # fmt: skip
LAST_COLUMNS = [("time", "number"), ("started", "nowrap")]

Summary = Mapping[str, Any]


def write(path: Path, summaries: Sequence[Summary]) -> None:
    """Write the page.

    Args:
        path: of the page; it links to each run's report, if that exists.
        summaries: of `runs.listing.find_runs`.
    """
    count = len(summaries)
    parameters = hyperparameters.differing(summaries)[:PARAMETERS]
    statuses = sorted(Counter(row["status"] for row in summaries).items())
    page.write(
        path,
        "runs.html.jinja",
        title="Runs",
        summary=", ".join([format_count(count, "run"), *(f"{number} {status}" for status, number in statuses)]),
        columns=[*COLUMNS, *((name, "number") for name in parameters), *LAST_COLUMNS],
        rows=[_row(path, row, parameters) for row in summaries],
        data_names=[row["data"] or row["status"] for row in summaries],
        comparisons=_comparisons(path, [row for row in summaries if row["value"] is not None]),
    )


def _row(path: Path, summary: Summary, parameters: Sequence[str]) -> list[Any]:
    report_path = Path(summary["folder"]) / report.FILE
    address = page.relative_url(report_path, path.parent) if report_path.exists() else ""
    return [
        Cell(_name(path, summary), href=address, note=summary["problem"] or ""),
        summary["status"],
        summary["model"],
        summary["data"],
        summary["monitor"],
        None if summary["value"] is None else format_rounded(summary["value"]),
        *(_parameter(summary["parameters"].get(name)) for name in parameters),
        Cell(format_duration(summary["duration_seconds"]), sort=summary["duration_seconds"] or 0),
        format_timestamp(summary["started"]),
    ]


def _parameter(value: Any) -> Any:
    """A number, which the table rounds, or text."""
    return value if value is None or is_number(value) else hyperparameters.text(value)


def _name(path: Path, summary: Summary) -> str:
    folder = Path(summary["folder"])
    try:
        return str(folder.resolve().relative_to(path.parent.resolve()))
    except ValueError:
        return str(folder)


def _comparisons(path: Path, summaries: Sequence[Summary]) -> list[dict[str, Any]]:
    """Return the runs of each task on the same data, by the same metric."""
    groups: dict[tuple[str, str, str, str], list[Summary]] = defaultdict(list)
    for row in summaries:
        if row["fingerprint"] is not None:
            groups[row["data"] or "?", row["monitor"], str(row["task"]), str(row["fingerprint"])].append(row)
    return [
        _comparison(path, data, metric, task, group)
        for (data, metric, task, _), group in sorted(groups.items(), key=lambda item: item[0])
        if len(group) > 1
    ]


def _comparison(path: Path, data: str, metric: str, task: str, group: list[Summary]) -> dict[str, Any]:
    mode = _mode(task, metric)
    ranked = sorted(group, key=lambda row: row["value"], reverse=mode == "max") if mode else group
    names = [_name(path, row) for row in ranked]
    curves = []
    for row, name in zip(ranked[:CURVES], names, strict=False):
        series = report_metrics.read_curves(Path(row["folder"])).get(metric)
        curves += [Series(name, series.points)] if series else []
    times = [(row["duration_seconds"] or 0.0, row["value"]) for row in ranked]
    titles = [
        f"{name}: {format_rounded(value, 3)} after {format_duration(seconds)}"
        for name, (seconds, value) in zip(names, times, strict=True)
    ]
    selection = f" of {'the best ' if mode else ''}{CURVES} runs" if len(group) > CURVES else ""
    return {
        "data": data,
        "metric": metric,
        "task": task,
        "mode": mode,
        "count": len(group),
        "best": names[0],
        "value": ranked[0]["value"],
        "second": names[1],
        "command": shlex.join(["python", "-m", "runs", "compare", names[1], names[0]]),
        **sweep.charts(ranked, names, metric, mode),
        "curves_title": f"{metric}{selection}",
        "curves": curves,
        "times": Series("runs", times, titles, style="dots"),
    }


def _mode(task: str, metric: str) -> str | None:
    """Return a metric's direction, max or min; None if this machine does not know the task."""
    try:
        return prediction_table.metric_mode(task, metric)
    except InputError:
        return None
