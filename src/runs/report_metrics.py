"""The report's part about metrics: values, curves, confusions and confidence."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from config.errors import InputError
from runs import calibration, charts, metric_lines, page, prediction_table
from runs import folder as folders
from runs.fields import as_mapping, is_number
from runs.page import escaped, number
from runs.prediction_table import PredictionTable
from runs.statistics import MeanEstimate, format_interval

PAIRS = 12  # of classes that are confused most
_RAW = ("train_examples_per_second",)


def metrics(record: Mapping[str, Any], columns: PredictionTable | None, means: Mapping[str, MeanEstimate]) -> list[str]:
    """The table of final metrics with their intervals.

    Args:
        record: the run's run.json.
        columns: its predictions, if they can be read.
        means: of the metrics that these tell, with intervals.
    """
    final = {name: value for name, value in as_mapping(record.get("metrics")).items() if is_number(value)}
    if not final:
        return []
    cells = []
    for name, value in final.items():
        mean, plot = means.get(name), ""
        interval = format_interval(mean)
        if mean is not None and columns is not None and interval:
            # On the range of the values of single examples, 0 included: 0 to 100 for an accuracy.
            low, high = min(0.0, float(columns.values[name].min())), max(0.0, float(columns.values[name].max()))
            plot = charts.interval(mean.value, mean.low, mean.high, (low, high)) if low < high else ""
        cells.append([f"<b>{escaped(name)}</b>", page.exact(value), interval, plot])
    table = page.table(["metric", "value", "95 % interval", "of lowest to highest"], cells, ["", "n", "w", ""])
    note = ""
    if columns is not None and not columns.values:
        note = f"No intervals: the module of the task {columns.task} has no scores (docs/tasks.md)."
    elif columns is not None:
        by = f"{columns.by}{'es' if columns.by.endswith('s') else 's'}"
        drawn = f", whole {by} drawn" if prediction_table.usable_clusters(columns.clusters) else ""
        note = f"Intervals are for other examples of the same kind (bootstrap{drawn}), not for other seeds. "
        note += "Each is drawn between the lowest and the highest value of an example, or 0."
    return ["<h2>Metrics</h2>", table, *([f"<p class='small'>{escaped(note)}</p>"] if note else [])]


def curves(folder: Path) -> list[str]:
    """Metrics over steps: losses, metrics of validation, and throughput."""
    try:
        lines = metric_lines.read(folder / folders.METRICS)
    except (InputError, OSError, ValueError):
        return []
    series: dict[str, list[tuple[float, float]]] = {}
    for line in increasing_steps(lines):
        for name, value in line.values.items():
            series.setdefault(name, []).append((float(line.step), float(value)))
    if not any(len(points) > 1 for points in series.values()):
        return []
    losses = {name: points for name, points in series.items() if name.endswith("loss")}
    others = {name: points for name, points in series.items() if name not in losses and name.startswith("val_")}
    shown = [("Losses", losses), ("Metrics", others)]
    for name in _RAW:
        if len(series.get(name, ())) > 1:
            shown.append((name.replace("_", " "), {name: series[name]}))
    cards = "".join(
        f"<div class='card'><h3>{escaped(title)}</h3>{charts.curves(each, 'step')}</div>"
        for title, each in shown
        if each
    )
    return ["<h2>Learning curves</h2>", f"<div class='grid'>{cards}</div>"]


def increasing_steps(lines: Sequence[metric_lines.MetricLine]) -> list[metric_lines.MetricLine]:
    """Lines of a curve: the last one, which says the best once more, is of a step that was before."""
    found: list[metric_lines.MetricLine] = []
    for line in lines:
        if not found or line.step > found[-1].step:
            found.append(line)
    return found


def confusion(record: Mapping[str, Any]) -> list[str]:
    """The confusion matrix in the record's details, and its most frequent confusions; nothing where there is none."""
    details = as_mapping(record.get("details"))
    counts = {
        str(true): {str(other): count for other, count in row.items() if isinstance(count, int)}
        for true, row in as_mapping(details.get("confusion")).items()
        if isinstance(row, dict)
    }
    if not counts:
        return []
    pairs = sorted(
        ((count, true, other) for true, row in counts.items() for other, count in row.items() if true != other),
        reverse=True,
    )[:PAIRS]
    cells = [
        [escaped(true), escaped(other), number(count), f"{count / max(1, sum(counts[true].values())):.0%}"]
        for count, true, other in pairs
    ]
    table = page.table(["true", "taken for", "times", "of its examples"], cells, ["i", "i", "n", "n"])
    note = "<p class='small'>Rows are true classes, columns predicted ones; point at a cell to read it.</p>"
    picture = f"<div class='scroll'>{charts.confusion(counts)}</div>{note}"
    body = f"<div class='two'><div>{picture}</div><div><h3>Most confused</h3>{table}</div></div>"
    return ["<h2>Confusions</h2>", body]


def confidence(columns: PredictionTable | None) -> list[str]:
    """How often the model is right against how sure it is; nothing where predictions do not say."""
    if columns is None or columns.confidence is None or columns.correct is None:
        return []
    found = calibration.reliability_bins(columns.confidence, columns.correct)
    off = calibration.expected_calibration_error(found)
    return [
        "<h2>Confidence</h2>",
        f"<p>The model's confidence is off by {off:.3f} on average (expected calibration error; 0 is best).</p>",
        charts.reliability(found),
    ]
