"""The report's values, curves, confusions and calibration, as plain data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from config.errors import InputError
from reports.charts import Series
from reports.page import format_percent, format_rounded
from runs import calibration, metric_lines, prediction_table, step_metrics
from runs import folder as folders
from runs.fields import as_mapping, is_number
from runs.prediction_table import PredictionTable
from runs.statistics import MeanEstimate, format_interval

PAIRS = 12  # of classes, the most frequently confused
_SPEED = "train_examples_per_second"


def metrics(
    record: Mapping[str, Any], columns: PredictionTable | None, means: Mapping[str, MeanEstimate]
) -> dict[str, Any] | None:
    """Return the table of final metrics with their intervals.

    Args:
        record: the run's run.json.
        columns: its predictions, if they can be read.
        means: of the metrics that can be computed from these, with intervals.
    """
    values = {name: value for name, value in as_mapping(record.get("metrics")).items() if is_number(value)}
    if not values:
        return None
    table = []
    for name, value in values.items():
        mean = means.get(name)
        interval, chart = format_interval(mean), None
        if mean is not None and columns is not None and interval:
            # Between the extremes of single examples, and 0: from 0 to 100 for an accuracy.
            low, high = min(0.0, float(columns.values[name].min())), max(0.0, float(columns.values[name].max()))
            chart = (mean.value, mean.low, mean.high, low, high) if low < high else None
        table.append([name, format_rounded(value), interval, chart or ""])
    return {"rows": table, "note": _note(columns)}


def _note(columns: PredictionTable | None) -> str:
    if columns is None:
        return ""
    if not columns.values:
        return f"No intervals: the module of the task {columns.task} has no scores (docs/tasks.md)."
    unit = f"clusters ({columns.by})" if prediction_table.usable_clusters(columns.clusters) else "examples"
    return (
        f"Intervals are bootstrap intervals over {unit}: they cover other examples of the same kind, not other seeds. "
        "Each is drawn between the lowest and the highest value of an example, or 0."
    )


def curves(folder: Path) -> dict[str, Any]:
    """Return the learning curves by title: losses, validation metrics, learning rate and throughput.

    The training loss has a point for every logged step where the run's folder has them, else one for each validation.
    """
    series, steps = read_curves(folder), step_metrics.read(folder)
    noisy = {name: Series(name, points, style="noisy") for name, points in steps.items() if len(points) > 1}
    if not noisy and not any(len(row.points) > 1 for row in series.values()):
        return {"curves": [], "noisy": False}
    if "train_loss" in noisy:
        series = {**noisy, **series, "train_loss": noisy["train_loss"]}
    losses = [row for name, row in series.items() if name.endswith("loss")]
    validation = [row for name, row in series.items() if name.startswith("val_") and not name.endswith("loss")]
    rates = [Series("lr", steps["lr"], style="steps")] if "lr" in noisy else []
    speed = [series[_SPEED]] if len(series[_SPEED].points if _SPEED in series else ()) > 1 else []
    titled = [("Losses", losses), ("Metrics", validation), ("Learning rate", rates)]
    titled.append(("Training examples per second", speed))
    return {"curves": [(title, group) for title, group in titled if group], "noisy": "train_loss" in noisy}


def read_curves(folder: Path) -> dict[str, Series]:
    """Return each metric of a run over its steps; empty if they cannot be read."""
    try:
        lines = metric_lines.read(folder / folders.METRICS)
    except (InputError, OSError, ValueError):
        return {}
    points: dict[str, list[tuple[float, float]]] = {}
    for line in increasing_steps(lines):
        for name, value in line.values.items():
            points.setdefault(name, []).append((float(line.step), float(value)))
    return {name: Series(name, row) for name, row in points.items()}


def increasing_steps(lines: Sequence[metric_lines.MetricLine]) -> list[metric_lines.MetricLine]:
    """Return the lines of a curve, without the last line of a run, which repeats those of an earlier step."""
    curve: list[metric_lines.MetricLine] = []
    for line in lines:
        if not curve or line.step > curve[-1].step:
            curve.append(line)
    return curve


def confusion(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the confusion matrix in the record's details, and its most frequent confusions."""
    counts = {
        str(label): {str(name): count for name, count in row.items() if isinstance(count, int)}
        for label, row in as_mapping(as_mapping(record.get("details")).get("confusion")).items()
        if isinstance(row, dict)
    }
    if not counts:
        return None
    confusions = [(count, label, name) for label, row in counts.items() for name, count in row.items() if label != name]
    pairs = [
        [label, name, count, format_percent(count / max(1, sum(counts[label].values())))]
        for count, label, name in sorted(confusions, reverse=True)[:PAIRS]
    ]
    return {"counts": counts, "pairs": pairs}


def reliability(columns: PredictionTable | None) -> dict[str, Any] | None:
    """Return bins of confidence and accuracy, and the calibration error; None without confidences."""
    if columns is None or columns.confidence is None or columns.correct is None:
        return None
    bins = calibration.reliability_bins(columns.confidence, columns.correct)
    return {"bins": bins, "error": calibration.expected_calibration_error(bins)}
