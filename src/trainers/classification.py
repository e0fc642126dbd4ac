"""Outputs, scores and classes of classifiers, shared by images and texts."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from config.errors import InputError

TOP_CLASSES = 5  # classes stored for each example


class ClassOutputs(NamedTuple):
    """Outputs of N evaluation examples.

    Attributes:
        positions: [N] positions in the split.
        labels: [N] true classes.
        losses: [N] cross-entropies.
        probabilities: [N, K] probabilities of the best classes, in descending order.
        classes: [N, K] the best classes.
    """

    positions: NDArray[np.int64]
    labels: NDArray[np.int64]
    losses: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    classes: NDArray[np.int64]


def batch_outputs(batch: dict[str, Tensor], logits: Tensor) -> ClassOutputs:
    """Return the outputs of a batch.

    Args:
        batch: `index` and `labels`, int64 [B].
        logits: float32 [B, C].
    """
    top = top_classes(logits)
    losses = cross_entropy(logits, batch["labels"], reduction="none")
    columns = (batch["index"], batch["labels"], losses, top.values, top.indices)
    return ClassOutputs(*(column.cpu().numpy() for column in columns))


def top_classes(logits: Tensor) -> Any:
    """Return the best classes of each example: `values`, their probabilities, and `indices`, both [B, K]."""
    return logits.softmax(1).topk(min(TOP_CLASSES, logits.shape[1]))


def merge_outputs(parts: Sequence[ClassOutputs]) -> ClassOutputs:
    """Concatenate the outputs of batches, in the order of the split."""
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.argsort(columns[0])
    return ClassOutputs(*(column[order] for column in columns))


def loss_and_accuracy(outputs: ClassOutputs) -> dict[str, float]:
    """Return `val_loss`, and `val_accuracy` in percent."""
    return {
        "val_loss": float(np.mean(outputs.losses, dtype=np.float64)),
        "val_accuracy": 100.0 * float(np.mean(outputs.classes[:, 0] == outputs.labels)),
    }


def top_accuracy(outputs: ClassOutputs) -> float:
    """Return how often the true class is among the best `TOP_CLASSES`, in percent."""
    return 100.0 * float(np.mean((outputs.classes == outputs.labels[:, None]).any(1)))


def prediction_rows(outputs: ClassOutputs, ids: Any, names: Sequence[str], key: str) -> Iterator[dict[str, Any]]:
    """Yield rows of predictions.jsonl.

    Args:
        outputs: outputs of the split.
        ids: [M] ids of the split's examples.
        names: [C] ids of the classes.
        key: key of the best classes in a row.
    """
    for index, label, loss, probabilities, classes in zip(*outputs, strict=True):
        yield {
            "id": ids[int(index)],
            "label": names[label],
            **prediction_fields(probabilities, classes, names, key),
            "correct": bool(classes[0] == label),
            "loss": float(loss),
        }


def prediction_fields(probabilities: Any, classes: Any, names: Sequence[str], key: str) -> dict[str, Any]:
    """Return the fields of a row that need no label.

    Args:
        probabilities: [K] probabilities of the best classes.
        classes: [K] the best classes.
        names: [C] ids of the classes.
        key: key of the best classes in the row.
    """
    return {
        "prediction": names[int(classes[0])],
        "probability": float(probabilities[0]),
        key: [names[int(number)] for number in classes],
    }


def confusion_matrix(outputs: ClassOutputs, count: int) -> NDArray[np.int64]:
    """Return the confusion matrix of `count` classes, [C, C]: rows are true classes, columns predicted ones."""
    matrix = np.zeros((count, count), np.int64)
    np.add.at(matrix, (outputs.labels, outputs.classes[:, 0]), 1)
    return matrix


def class_details(matrix: NDArray[np.int64], names: Sequence[str]) -> dict[str, Any]:
    """Return accuracy and confusions by class, for run.json.

    Args:
        matrix: [C, C] confusion matrix.
        names: [C] ids of the classes.

    Returns:
        `class_accuracy`: percent by class, of classes that occur. `confusion`: the non-zero entries of the confusion
        matrix, by true and predicted class.
    """
    occurring = [k for k in range(len(names)) if matrix[k].any()]
    return {
        "class_accuracy": {names[k]: round(100 * int(matrix[k, k]) / int(matrix[k].sum()), 4) for k in occurring},
        "confusion": {
            names[k]: {names[j]: int(matrix[k, j]) for j in np.flatnonzero(matrix[k]).tolist()} for k in occurring
        },
    }


def class_f1(matrix: NDArray[np.int64], names: Sequence[str]) -> dict[str, float]:
    """Return F1 in percent by class, of classes that occur."""
    totals = matrix.sum(0) + matrix.sum(1)
    return {names[k]: round(200 * int(matrix[k, k]) / int(totals[k]), 4) for k in range(len(names)) if matrix[k].any()}


def macro_f1(matrix: NDArray[np.int64]) -> float:
    """Return the mean F1 in percent over classes that are true or predicted (as scikit-learn's macro average)."""
    totals = matrix.sum(0) + matrix.sum(1)
    occurring = totals > 0
    return 100.0 * float(np.mean(2 * np.diag(matrix)[occurring] / totals[occurring]))


def check_same_classes(model: Sequence[str] | None, data: Sequence[str]) -> None:
    """Check that a model and a data set have the same classes in the same order.

    Args:
        model: ids of the model's classes, in the order of its outputs; None if unknown.
        data: ids of the data's classes.

    Raises:
        InputError: they differ.
    """
    if not model or list(model) == list(data):
        return
    unknown = [name for name in data if name not in model][:3]
    difference = f"such as {', '.join(unknown)}" if unknown else "in another number or order"
    raise InputError(f"the data has other classes than the model ({len(data)} and {len(model)}; {difference})")
