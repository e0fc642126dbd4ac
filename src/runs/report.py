"""A run's report: one self-contained page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from config.numbers import format_count
from config.terminal import format_duration, format_timestamp
from reports import page
from reports.page import Cell, format_rounded
from runs import folder as folders
from runs import prediction_table, report_metrics, report_mistakes, report_record
from runs.fields import as_mapping, is_number
from runs.listing import choice_name, run_status
from runs.statistics import MeanEstimate, format_interval

FILE = folders.REPORT


def write(folder: Path, against: Path | None = None) -> Path:
    """Write a run's report into its folder.

    Args:
        folder: the run's folder.
        against: another run, whose configuration is compared with this one's.

    Returns:
        The path of the page.

    Raises:
        InputError: a record is missing or cannot be read, or report.html is another program's.
    """
    record = folders.read_record(folder)
    page.check_page(folder / FILE)
    columns, error = prediction_table.read_if_valid(folder, record)
    means = prediction_table.metric_means(columns) if columns is not None else {}
    page.write(
        folder / FILE,
        "run.html.jinja",
        title=f"{choice_name(record, 'model') or 'a model'} on {choice_name(record, 'data') or 'its data'}",
        status=run_status(folder, record),
        reason=record.get("reason"),
        predictions_error=error,
        summary=_summary(folder, record, means),
        metrics=report_metrics.metrics(record, columns, means),
        **report_metrics.curves(folder),
        confusion=report_metrics.confusion(record),
        mistakes=report_mistakes.mistakes(folder, columns),
        calibration=report_metrics.reliability(columns),
        timings=report_record.timings(record),
        machine=report_record.machine(record),
        gates=report_record.gates(folder, record),
        changes=report_record.changes(record, against) if against is not None else None,
        **report_record.origin(folder, record),
    )
    return folder / FILE


def _summary(folder: Path, record: Mapping[str, Any], means: Mapping[str, MeanEstimate]) -> list[tuple[str, Any]]:
    """Return the terms and values at the head of the page."""
    config = as_mapping(record.get("config"))
    monitor = config.get("monitor") or as_mapping(config.get("task")).get("monitor")
    metrics = as_mapping(record.get("metrics"))
    pairs: list[tuple[str, Any]] = []
    if isinstance(monitor, str) and is_number(metrics.get(monitor)):
        note = ""
        if interval := format_interval(means.get(monitor)):
            note = f"95 % interval {interval}, {format_count(means[monitor].examples, 'example')}"
        pairs.append((monitor, Cell(format_rounded(metrics[monitor]), note=note)))
    best = as_mapping(record.get("best"))
    if isinstance(best.get("step"), int):
        pairs.append(("Best checkpoint", f"epoch {best.get('epoch')}, step {best['step']:,}"))
    hardware = as_mapping(record.get("hardware"))
    gpus = hardware.get("gpus") if isinstance(hardware.get("gpus"), list) else []
    unit, count = ("GPU", len(gpus)) if gpus else ("core", hardware.get("cores"))
    machine = f"{count or '?'} {unit}{'s' if count != 1 else ''}"
    pairs.append(("Duration", f"{format_duration(record.get('duration_seconds'))} on {machine}"))
    if record.get("restarts"):
        pairs.append(("Restarts", record["restarts"]))
    pairs.append(("Started", format_timestamp(record.get("started"))))
    return [*pairs, ("Run folder", "/".join(folder.resolve().parts[-2:]))]
