"""Predictions of a run as columns: metrics of each example, its cluster, confidence and correctness."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from config import tasks
from config.errors import InputError
from runs import folder as folders
from runs import predictions
from runs.fields import as_mapping
from runs.statistics import MeanEstimate, bootstrap_mean

Floats = npt.NDArray[np.float64]

_MIN_CLUSTERS = 10  # with fewer, single examples are resampled


@dataclass(frozen=True)
class PredictionTable:
    """The predictions of a run.

    Attributes:
        task: Name of the task.
        rows: Rows of predictions.jsonl.
        ids: [N].
        values: [N] for each metric that is the mean of values of single examples. Empty for a task without `scores`.
        clusters: [N] cluster of each example; empty if the task or a row has none.
        by: What clusters are: the task's CLUSTER_NAME.
        confidence: [N] 0 to 1, the key `probability`; None if a row lacks it.
        correct: [N] 0 or 1; None for a task without `is_correct`.
    """

    task: str
    rows: list[dict[str, Any]]
    ids: list[str]
    values: dict[str, Floats]
    clusters: list[str]
    by: str
    confidence: Floats | None
    correct: Floats | None


def read_table(folder: Path, record: Mapping[str, Any] | None = None) -> PredictionTable:
    """Read the predictions of a run.

    Args:
        folder: The run folder.
        record: Its record, if it is read already.

    Raises:
        InputError: There are no predictions, they are not of the record's task, or the task is not configured.
    """
    task = tasks.task_from_record(folders.read_record(folder) if record is None else record)
    module = tasks.load_module(task)
    path = folder / folders.PREDICTIONS
    rows = list(predictions.read(path))
    if not rows:
        raise InputError(f"{path} has no predictions")
    if not all(isinstance(row["id"], str | int) for row in rows):
        raise InputError(f"{path} has an id that is not text")
    ids = [str(row["id"]) for row in rows]
    if len(set(ids)) < len(ids):
        raise InputError(f"{path} has an id twice")
    key = getattr(module, "CLUSTER", None)
    probability = _column(rows, "probability")
    scores, is_correct = getattr(module, "scores", None), getattr(module, "is_correct", None)
    values = _metric_columns(_apply(scores, rows, path, task), path, task) if scores else {}
    correct = list(map(bool, _apply(is_correct, rows, path, task))) if is_correct else None
    return PredictionTable(
        task=task,
        rows=rows,
        ids=ids,
        values=values,
        clusters=[str(name) for name in _column(rows, key)] if key else [],
        by=getattr(module, "CLUSTER_NAME", key or "example"),
        confidence=np.array(_apply(float, probability, path, task), np.float64) if probability else None,
        correct=None if correct is None else np.array(correct, np.float64),
    )


def read_if_valid(folder: Path, record: Mapping[str, Any]) -> tuple[PredictionTable | None, str]:
    """Return the predictions of a run, or None and why they cannot be read; a run without predictions has no reason."""
    if not (folder / folders.PREDICTIONS).exists():
        return None, ""
    try:
        return read_table(folder, record), ""
    except InputError as error:
        return None, str(error)


def usable_clusters(clusters: Iterable[str]) -> list[str] | None:
    """Return the clusters to resample; None if they are too few, so that single examples are resampled."""
    names = list(clusters)
    return names if len(set(names)) >= _MIN_CLUSTERS else None


def metric_means(table: PredictionTable) -> dict[str, MeanEstimate]:
    """Return the mean of each metric with its confidence interval."""
    clusters = usable_clusters(table.clusters)
    return {name: bootstrap_mean(values, clusters) for name, values in table.values.items()}


def metric_mode(task: str, metric: str) -> str | None:
    """Return the direction of a metric in conf/task, "max" or "min"; None if it is not declared.

    Raises:
        InputError: The task is not configured.
    """
    mode = as_mapping(as_mapping(tasks.load_settings(task).get("metrics")).get(metric)).get("mode")
    return mode if mode in ("max", "min") else None


def _apply(function: Callable[[Any], Any], values: Iterable[Any], path: Path, task: str) -> list[Any]:
    """Results of a function of the task, whose errors mean rows of another task, or a bug in a user's task."""
    results = []
    for line, value in enumerate(values, 1):
        try:
            results.append(function(value))
        except Exception as error:
            raise InputError(
                f"{path}, line {line}, is not a prediction of the task {task}: {type(error).__name__}: {error}"
            ) from error
    return results


def _metric_columns(scores: list[Any], path: Path, task: str) -> dict[str, Floats]:
    """Columns [N] of the metrics that every row has."""
    try:
        names = [name for name in scores[0] if all(name in row for row in scores)]
        values = {str(name): np.array([float(row[name]) for row in scores], np.float64) for name in names}
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path}: scores of the task {task} must return a mapping from metrics to numbers: {error}"
        ) from error
    if not values:
        raise InputError(f"{path}: its rows have no common metric")
    for name, column in values.items():
        if not np.isfinite(column).all():
            raise InputError(f"{path}, line {int(np.argmin(np.isfinite(column))) + 1}: {name} is not finite")
    return values


def _column(rows: list[dict[str, Any]], key: str) -> list[Any]:
    """Values of a key; empty if a row lacks it."""
    return [row[key] for row in rows] if all(row.get(key) is not None for row in rows) else []
