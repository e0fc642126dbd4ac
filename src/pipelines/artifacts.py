"""Artifacts that KFP shows of a step: one HTML page, one Markdown text, metrics, a confusion matrix, a model."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from config import files
from config.numbers import is_finite
from reports import markdown as tables
from reports import page as reports

_MAX_CLASSES = 20  # of a confusion matrix, which KFP keeps in metadata and draws in a small field


def html(artifact: Any, page: Path) -> None:
    """Copy a page into the artifact. Pages are self-contained, as KFP's sandbox requires."""
    target = Path(artifact.path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if page.exists():
        shutil.copyfile(page, target)
    else:
        reports.write(target, "no_report.html.jinja", title="No report")


def markdown(artifact: Any, text: str) -> None:
    """Write text into the artifact, up to the 400,000 characters that KFP shows."""
    target = Path(artifact.path)
    target.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(target, text[:400_000])


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table, with its cells escaped."""
    return tables.table(header, [[tables.escape(cell) for cell in row] for row in rows])


def metrics(artifact: Any, values: Mapping[str, Any]) -> None:
    """Log finite numbers; others cannot be stored in KFP's metadata and would fail the step."""
    for name, value in values.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and is_finite(value):
            artifact.log_metric(name, float(value))


def confusion(artifact: Any, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Log a confusion matrix, restricted to the classes with most errors.

    Args:
        artifact: ClassificationMetrics.
        counts: Number of examples by true class and predicted class.
    """
    errors = dict.fromkeys([*counts, *(name for row in counts.values() for name in row)], 0)
    for true, row in counts.items():
        errors[true] = sum(count for name, count in row.items() if name != true)
    names = sorted(sorted(errors, key=lambda name: -errors[name])[:_MAX_CLASSES])
    if names:
        matrix = [[counts.get(true, {}).get(name, 0) for name in names] for true in names]
        artifact.log_confusion_matrix(names, matrix)


def model(artifact: Any, run: Path, metadata: Mapping[str, Any]) -> None:
    """Copy the saved model of a run into the artifact, and set metadata that are not empty."""
    target = Path(artifact.path)
    if (run / "model").is_dir():
        shutil.copytree(run / "model", target, dirs_exist_ok=True)  # it exists if KFP repeats the step
    else:  # a baseline has none
        target.mkdir(parents=True, exist_ok=True)
    artifact.metadata |= {name: value for name, value in metadata.items() if value not in (None, "", [], {})}
