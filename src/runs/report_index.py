"""A page for many runs: a table to sort and filter, and how they compare, without any server."""

import os
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from config.errors import InputError
from config.terminal import format_duration, format_timestamp
from runs import charts, metric_lines, page, prediction_table, report, report_metrics
from runs import folder as folders
from runs.page import badge, escaped, number

BEST = 8  # runs whose curves are drawn


def write(path: Path, summaries: Sequence[Mapping[str, Any]]) -> None:
    """Writes the page.

    Args:
        path: the page; it links to each run's own, if that is there.
        summaries: of `runs.listing.find_runs`.
    """
    fine = [each for each in summaries if each["value"] is not None]
    words = [f"{len(summaries)} runs" if len(summaries) != 1 else "1 run", *_counts(summaries)]
    parts = [
        "<h1>Runs</h1>",
        f"<p>{escaped(', '.join(words))}. A click on a column sorts by it.</p>",
        _table(path, summaries),
        *_groups(path, fine),
    ]
    page.write(path, "Runs", parts, page.SCRIPT)


def _counts(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    found: dict[str, int] = defaultdict(int)
    for each in summaries:
        found[each["status"]] += 1
    return [f"{count} {status}" for status, count in sorted(found.items())]


def _table(path: Path, summaries: Sequence[Mapping[str, Any]]) -> str:
    cells, slices = [], []
    for each in summaries:
        folder = Path(each["folder"])
        name = escaped(_name(path, folder))
        own = folder / report.FILE
        shown = (
            f"<a href='{escaped(page.address(os.path.relpath(own, path.parent)))}'>{name}</a>" if own.exists() else name
        )
        problem = f"<br><span class='small'>{escaped(each['problem'])}</span>" if each["problem"] else ""
        cells.append([
            f"{shown}{problem}", badge(each["status"]), escaped(each["model"] or "-"), escaped(each["data"] or "-"),
            escaped(each["monitor"] or "-"), page.exact(each["value"]) if each["value"] is not None else "-",
            f"<span data-v='{each['duration_seconds'] or 0}'>{format_duration(each['duration_seconds'])}</span>",
            f"<span class='small'>{escaped(format_timestamp(each['started']))}</span>",
        ])  # fmt: skip
        slices.append(each["data"] or each["status"])
    header = ["run", "status", "model", "data", "metric", "value", "time", "started"]
    return page.table(header, cells, ["i", "", "i", "i", "w", "n", "n", "w"], slices=slices)


def _name(path: Path, folder: Path) -> str:
    try:
        return str(folder.resolve().relative_to(path.parent.resolve()))
    except ValueError:
        return str(folder)


def _groups(path: Path, fine: Sequence[Mapping[str, Any]]) -> list[str]:
    """Runs of one task on the same data, by the same metric."""
    groups: dict[tuple[str, str, str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for each in fine:
        groups[each["data"] or "?", each["monitor"], str(each["task"]), str(each["fingerprint"])].append(each)
    parts = []
    for (data, monitor, task, _), of in sorted(groups.items()):
        if len(of) < 2 or of[0]["fingerprint"] is None:
            continue
        mode = _mode(task, monitor)
        best = sorted(of, key=lambda each: each["value"] if mode == "min" else -each["value"]) if mode else of
        curves = {_name(path, Path(each["folder"])): _curve(Path(each["folder"]), monitor) for each in best[:BEST]}
        points = [(each["duration_seconds"] or 0.0, each["value"], _name(path, Path(each["folder"]))) for each in of]
        first, last = (_name(path, Path(each["folder"])) for each in (best[0], best[-1]))
        shown = f"{monitor} of {'the best ' if mode else ''}{min(BEST, len(of))}" if len(of) > BEST else monitor
        text = (
            f"<p>Of {number(len(of))} runs the best is {escaped(first)} ({page.exact(best[0]['value'])}). Whether that is more than chance: "
            f"<code>{escaped(shlex.join(['python', '-m', 'runs', 'compare', last, first]))}</code> from this page's folder.</p>"
        )
        if mode is None:
            text = f"<p>Which of {number(len(of))} runs is best is not known: conf/task/{escaped(task)}.yaml does not declare {escaped(monitor)} here.</p>"
        parts += [
            f"<h2>{escaped(data)}: {escaped(monitor)}</h2>", text, "<div class='grid'>",
            f"<div class='card'><h3>{escaped(shown)}</h3>{charts.curves(curves, 'step')}</div>",
            f"<div class='card'><h3>{escaped(monitor)} and time</h3>{charts.scatter(points, 'seconds')}</div>", "</div>",
        ]  # fmt: skip
    return parts


def _mode(task: str, metric: str) -> str | None:
    """Direction of a metric, max or min; None where this machine does not know it."""
    try:
        return prediction_table.metric_mode(task, metric)
    except InputError:
        return None


def _curve(folder: Path, monitor: str) -> list[tuple[float, float]]:
    try:
        lines = metric_lines.read(folder / folders.METRICS)
    except (InputError, OSError, ValueError):
        return []
    return [
        (float(line.step), float(line.values[monitor]))
        for line in report_metrics.increasing_steps(lines)
        if monitor in line.values
    ]
