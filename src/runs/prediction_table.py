"""Predictions as columns: what each metric is of each example, what it belongs to, how sure the model was."""

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

FEW = 10  # clusters below which examples are drawn one by one: whole clusters say nothing of so few


@dataclass(frozen=True)
class PredictionTable:
    """A run's predictions.

    Attributes:
        task: its name.
        rows: as they are in predictions.jsonl.
        ids: [N].
        values: [N] of each metric that can be told of single examples, in the metric's unit: their mean is the metric.
            Empty for a task without `scores`.
        clusters: [N] the cluster of each example; empty where the task or a row names none.
        by: what clusters are: the task's CLUSTER_NAME.
        confidence: [N] 0 to 1, the key `probability`; None where a row lacks it.
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
    """A run's predictions, read as its task says.

    Args:
        folder: the run's.
        record: its run.json, where it is at hand.

    Raises:
        InputError: there are none, they are not of the record's task, or this machine does not know the task.
    """
    task = tasks.task_from_record(folders.read_record(folder) if record is None else record)
    module = tasks.load_module(task)
    path = folder / folders.PREDICTIONS
    rows = list(predictions.read(path))
    if not rows:
        raise InputError(f"{path} has no predictions")
    if not all(isinstance(row["id"], str | int) for row in rows):
        raise InputError(f"{path} has an id that is no text")
    ids = [str(row["id"]) for row in rows]
    if len(set(ids)) < len(ids):
        raise InputError(f"{path} has an id twice")
    key = getattr(module, "CLUSTER", None)
    clusters = [str(name) for name in _column(rows, key)] if key else []
    by = getattr(module, "CLUSTER_NAME", key or "example")
    probability = _column(rows, "probability")
    confidence = np.array(_computed(float, probability, path, task), np.float64) if probability else None
    values: dict[str, Floats] = {}
    if scores := getattr(module, "scores", None):
        values = _values(_computed(scores, rows, path, task), path, task)
    correct = None
    if is_correct := getattr(module, "is_correct", None):
        correct = np.array([bool(flag) for flag in _computed(is_correct, rows, path, task)], np.float64)
    return PredictionTable(task, rows, ids, values, clusters, by, confidence, correct)


def usable_clusters(clusters: Iterable[str]) -> list[str] | None:
    """Clusters to draw from; None where they are too few, or unknown, and examples are drawn one by one."""
    found = list(clusters)
    return found if len(set(found)) >= FEW else None


def metric_means(columns: PredictionTable) -> dict[str, MeanEstimate]:
    """Each metric of the predictions with its interval."""
    clusters = usable_clusters(columns.clusters)
    return {name: bootstrap_mean(values, clusters) for name, values in columns.values.items()}


def metric_mode(task: str, metric: str) -> str | None:
    """Direction of a metric: "max" or "min" as conf/task declares it; None if it does not.

    Raises:
        InputError: this machine does not know the task.
    """
    found = as_mapping(as_mapping(tasks.load_settings(task).get("metrics")).get(metric)).get("mode")
    return found if found in ("max", "min") else None


def _computed(function: Callable[[Any], Any], values: Iterable[Any], path: Path, task: str) -> list[Any]:
    """A task's function of each row: it may meet rows of another task, and be somebody's own."""
    results = []
    for line, value in enumerate(values, 1):
        try:
            results.append(function(value))
        except Exception as error:
            raise InputError(
                f"{path}, line {line}, is no prediction of the task {task}: {type(error).__name__}: {error}"
            ) from error
    return results


def _values(scores: list[Any], path: Path, task: str) -> dict[str, Floats]:
    """Columns [N] of the metrics that every row has."""
    try:
        names = [name for name in scores[0] if all(name in row for row in scores)]
        values = {str(name): np.array([float(row[name]) for row in scores], np.float64) for name in names}
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path}: scores of the task {task} gives no mapping from metrics to numbers: {error}"
        ) from error
    if not values:
        raise InputError(f"{path} has rows without a common metric")
    for name, column in values.items():
        if not np.isfinite(column).all():
            raise InputError(f"{path}, line {int(np.argmin(np.isfinite(column))) + 1}: {name} is no finite number")
    return values


def _column(rows: list[dict[str, Any]], key: str) -> list[Any]:
    """Values of a key; empty where not every row has it."""
    return [row[key] for row in rows] if all(row.get(key) is not None for row in rows) else []
