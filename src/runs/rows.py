"""Predictions as columns: what each metric is of each example, what it belongs to, how sure the model was."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from config.errors import Refused
from runs import folder as folders
from runs import predictions
from runs.statistics import Mean, mean

Floats = npt.NDArray[np.float64]

FEW = 10  # clusters below which examples are drawn one by one: whole clusters say nothing of so few
LOWER_IS_BETTER = ("val_loss",)


@dataclass(frozen=True)
class Columns:
    """A run's predictions.

    Attributes:
        rows: as they are in predictions.jsonl.
        ids: [N].
        values: [N] of each metric that can be told of single examples, in the metric's unit: their mean is the metric.
        clusters: [N] document or class of each; empty where rows do not say.
        by: what clusters are: document or class.
        confidence: [N] 0 to 1; None where rows do not say.
        right: [N] 0 or 1: the class, or an exact match.
    """

    rows: list[dict[str, Any]]
    ids: list[str]
    values: dict[str, Floats]
    clusters: list[str]
    by: str
    confidence: Floats | None
    right: Floats


def read(folder: Path) -> Columns:
    """A run's predictions.

    Raises:
        Refused: there are none, or they are not ours.
    """
    path = folder / folders.PREDICTIONS
    rows = list(predictions.read(path))
    if not rows:
        raise Refused(f"{path} has no predictions")
    ids = [str(row["id"]) for row in rows]
    if len(set(ids)) < len(ids):
        raise Refused(f"{path} has an id twice")
    clusters = _all(rows, "document" if "exact_match" in rows[0] else "label")
    sure = _all(rows, "probability")
    try:
        measured = [_measured(row) for row in rows]
        confidence = np.array(sure, np.float64) if sure else None
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise Refused(f"{path} has a row that is no prediction of ours: {type(error).__name__}: {error}") from None
    if not all(isinstance(row["id"], str | int) for row in rows):
        raise Refused(f"{path} has an id that is no text")
    names = [name for name in measured[0] if all(name in each for each in measured)]
    if not names:
        raise Refused(f"{path} has rows of questions and of images")
    values = {name: np.array([each[name] for each in measured], np.float64) for name in names}
    if any(not np.isfinite(column).all() for column in values.values()):
        raise Refused(f"{path} has a value that is no number")
    questions = "val_exact_match" in values
    right = values["val_exact_match" if questions else "val_accuracy"] / 100
    return Columns(
        rows, ids, values, [str(each) for each in clusters], "document" if questions else "class",
        confidence, right,
    )  # fmt: skip


def clustered(clusters: Iterable[str]) -> list[str] | None:
    """Clusters to draw from; None where they are too few, or unknown, and examples are drawn one by one."""
    found = list(clusters)
    return found if len(set(found)) >= FEW else None


def _measured(row: Mapping[str, Any]) -> dict[str, float]:
    if "exact_match" in row:
        return {"val_exact_match": 100.0 * row["exact_match"], "val_f1": 100.0 * row["f1"]}
    return {
        "val_accuracy": 100.0 * bool(row["correct"]),
        "val_top5_accuracy": 100.0 * (row["label"] in row["top5"]),
        **({"val_loss": float(row["loss"])} if "loss" in row else {}),
    }


def _all(rows: list[dict[str, Any]], key: str) -> list[Any]:
    """A column; empty where not every row has it."""
    return [row[key] for row in rows] if all(row.get(key) is not None for row in rows) else []


def known(columns: Columns) -> dict[str, Mean]:
    """Each metric of the predictions with its interval."""
    clusters = clustered(columns.clusters)
    return {name: mean(values, clusters) for name, values in columns.values.items()}
