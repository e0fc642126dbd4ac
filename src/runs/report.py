"""A run's report: one page that needs nothing else."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from config.errors import InputError
from config.terminal import format_duration, format_timestamp
from runs import folder as folders
from runs import page, prediction_table, report_metrics, report_mistakes, report_record
from runs.fields import as_mapping, is_number
from runs.listing import choice_name, run_status
from runs.page import badge, escaped
from runs.prediction_table import PredictionTable
from runs.statistics import MeanEstimate, format_interval

FILE = "report.html"


def write(folder: Path, against: Path | None = None) -> Path:
    """Writes a run's report into its folder.

    Args:
        folder: the run's.
        against: another run; the page says what their configurations differ by.

    Raises:
        InputError: there is no run, or its record cannot be read.
    """
    record = folders.read_record(folder)
    columns, trouble = _columns(folder, record)
    means = prediction_table.metric_means(columns) if columns is not None else {}
    name = f"{choice_name(record, 'model') or 'a model'} on {choice_name(record, 'data') or 'its data'}"
    parts = [
        f"<h1>{escaped(name)} {badge(run_status(folder, record))}</h1>",
        *_summary(folder, record, means, trouble),
        *report_metrics.metrics(record, columns, means),
        *report_metrics.curves(folder),
        *report_metrics.confusion(record),
        *report_mistakes.mistakes(folder, columns),
        *report_metrics.confidence(columns),
        *report_record.work(record),
        *report_record.gates(folder, record),
        *report_record.configuration(record, against),
        *report_record.origin(folder, record),
    ]
    page.write(folder / FILE, name, parts, page.SCRIPT)
    return folder / FILE


def _columns(folder: Path, record: Mapping[str, Any]) -> tuple[PredictionTable | None, str]:
    """The predictions, or why there are none."""
    if not (folder / folders.PREDICTIONS).exists():
        return None, ""
    try:
        return prediction_table.read_table(folder, record), ""
    except InputError as error:
        return None, str(error)


def _summary(folder: Path, record: Mapping[str, Any], means: Mapping[str, MeanEstimate], trouble: str) -> list[str]:
    config = as_mapping(record.get("config"))
    task = as_mapping(config.get("task"))
    monitor = config.get("monitor") or task.get("monitor") or ""
    metrics = as_mapping(record.get("metrics"))
    said = []
    if isinstance(monitor, str) and is_number(metrics.get(monitor)):
        interval = ""
        if ends := format_interval(means.get(monitor)):
            interval = f" (95 % interval {ends}, over {means[monitor].examples:,} examples)"
        best = as_mapping(record.get("best"))
        at = f" after epoch {best.get('epoch')} and {best['step']:,} steps" if isinstance(best.get("step"), int) else ""
        said.append(f"it reached {monitor} {page.exact(metrics[monitor])}{interval}{at}")
    hardware = as_mapping(record.get("hardware"))
    gpus = hardware.get("gpus") if isinstance(hardware.get("gpus"), list) else []
    what, of = ("GPU", len(gpus)) if gpus else ("core", hardware.get("cores"))
    on = f"{of or '?'} {what}{'s' if of != 1 else ''}"
    said.append(f"it took {format_duration(record.get('duration_seconds'))} on {on}")
    if record.get("restarts"):
        said.append(f"it was restarted {record['restarts']} times")
    for gate in ("quality", "explain"):
        verdict = as_mapping(record.get(gate)).get("status")
        if isinstance(verdict, str):
            said.append(f"{'its data' if gate == 'quality' else 'its explanations'}: {verdict}")
    text = "; ".join(said)
    lines = [f"<p>{escaped(text[:1].upper() + text[1:])}.</p>"]
    if record.get("reason"):
        lines.append(f"<p><b>{escaped(record['reason'])}</b></p>")
    if trouble:
        lines.append(f"<p><b>Its predictions cannot be read: {escaped(trouble)}.</b></p>")
    stamps = f"{format_timestamp(record.get('started'))} · {'/'.join(folder.resolve().parts[-2:])}"
    return [*lines, f"<p class='small'>{escaped(stamps)}</p>"]
