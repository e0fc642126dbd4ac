"""Scores of a classifier's validation: what images and texts have in common."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

TOP_CLASSES = 5  # classes kept of each example


class ClassOutputs(NamedTuple):
    """What is kept of N evaluation examples.

    Attributes:
        positions: [N] in the split.
        labels: [N] true classes.
        losses: [N] cross-entropies.
        probabilities: [N, K] of the best classes, the highest first.
        classes: [N, K] the best classes.
    """

    positions: NDArray[np.int64]
    labels: NDArray[np.int64]
    losses: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    classes: NDArray[np.int64]


def batch_outputs(batch: dict[str, Tensor], logits: Tensor) -> ClassOutputs:
    """What is kept of a batch.

    Args:
        batch: with `index` and `labels`, int64 [B].
        logits: float32 [B, C].
    """
    best = top_classes(logits)
    losses = cross_entropy(logits, batch["labels"], reduction="none")
    kept = (batch["index"], batch["labels"], losses, best.values, best.indices)
    return ClassOutputs(*(tensor.cpu().numpy() for tensor in kept))


def top_classes(logits: Tensor) -> Any:
    """The best classes of each example: `values`, their probabilities, and `indices`, [B, K]."""
    return logits.softmax(1).topk(min(TOP_CLASSES, logits.shape[1]))


def merge_outputs(parts: Sequence[ClassOutputs]) -> ClassOutputs:
    """The parts of a split put together, in the split's order."""
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.argsort(columns[0])
    return ClassOutputs(*(column[order] for column in columns))


def loss_and_accuracy(found: ClassOutputs) -> dict[str, float]:
    """`val_loss`, and `val_accuracy` in percent."""
    return {
        "val_loss": float(np.mean(found.losses, dtype=np.float64)),
        "val_accuracy": 100.0 * float(np.mean(found.classes[:, 0] == found.labels)),
    }


def top_accuracy(found: ClassOutputs) -> float:
    """How often the true class is among the best `TOP`, in percent."""
    return 100.0 * float(np.mean((found.classes == found.labels[:, None]).any(1)))


def prediction_rows(found: ClassOutputs, ids: Any, names: Sequence[str], key: str) -> Iterator[dict[str, Any]]:
    """Rows of predictions.jsonl.

    Args:
        found: the split's.
        ids: [M] texts, of the split's examples.
        names: [C] ids of the classes.
        key: under which a row has its best classes.
    """
    for index, label, loss, probability, best in zip(*found, strict=True):
        yield {"id": ids[int(index)], "label": names[label], **prediction_fields(probability, best, names, key)} | {
            "correct": bool(best[0] == label),
            "loss": float(loss),
        }


def prediction_fields(probabilities: Any, classes: Any, names: Sequence[str], key: str) -> dict[str, Any]:
    """What a row says of one prediction, with or without a label.

    Args:
        probabilities: [K] of the best classes.
        classes: [K] the best classes.
        names: [C] ids of the classes.
        key: under which the row has the best classes.
    """
    return {
        "prediction": names[int(classes[0])],
        "probability": float(probabilities[0]),
        key: [names[int(number)] for number in classes],
    }


def confusion_matrix(labels: NDArray[Any], predicted: NDArray[Any], count: int) -> NDArray[np.int64]:
    """How often a class is taken for another, [C, C]: rows are true classes, columns predicted ones."""
    matrix = np.zeros((count, count), np.int64)
    np.add.at(matrix, (labels, predicted), 1)
    return matrix


def macro_f1(labels: NDArray[Any], predicted: NDArray[Any], count: int) -> float:
    """The mean of the classes' F1 in percent, over classes that are true or predicted anywhere (as scikit-learn's)."""
    matrix = confusion_matrix(labels, predicted, count)
    totals = matrix.sum(0) + matrix.sum(1)
    known = totals > 0
    return 100.0 * float(np.mean(2 * np.diag(matrix)[known] / totals[known]))


def class_details(labels: NDArray[Any], predicted: NDArray[Any], names: Sequence[str]) -> dict[str, Any]:
    """Accuracy and confusions by class, for run.json.

    Args:
        labels: [N] whole numbers, positions in `names`.
        predicted: [N], the same.
        names: [C] ids of the classes.

    Returns:
        `class_accuracy`: percent by class, of classes that occur. `confusion`: the confusion matrix without its zeros:
        how often, by true class and predicted class.
    """
    matrix = confusion_matrix(labels, predicted, len(names))
    occurring = [k for k in range(len(names)) if matrix[k].any()]
    return {
        "class_accuracy": {names[k]: round(100 * int(matrix[k, k]) / int(matrix[k].sum()), 4) for k in occurring},
        "confusion": {
            names[k]: {names[j]: int(matrix[k, j]) for j in np.flatnonzero(matrix[k]).tolist()} for k in occurring
        },
    }


def class_f1(labels: NDArray[Any], predicted: NDArray[Any], names: Sequence[str]) -> dict[str, float]:
    """F1 in percent by class, of classes that occur."""
    matrix = confusion_matrix(labels, predicted, len(names))
    totals = matrix.sum(0) + matrix.sum(1)
    return {names[k]: round(200 * int(matrix[k, k]) / int(totals[k]), 4) for k in range(len(names)) if matrix[k].any()}
