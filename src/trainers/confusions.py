"""Which classes are recognised, and what the others are taken for."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def confusions(labels: NDArray[Any], predicted: NDArray[Any], names: Sequence[str]) -> dict[str, Any]:
    """Accuracy and confusions by class, for run.json.

    Args:
        labels: [N] whole numbers, positions in `names`.
        predicted: [N], the same.
        names: [C] ids of the classes.

    Returns:
        `class_accuracy`: percent by class, of classes that occur. `confusion`: the confusion matrix without its zeros:
        how often, by true class and predicted class.
    """
    matrix = np.zeros((len(names), len(names)), np.int64)
    np.add.at(matrix, (labels, predicted), 1)
    occurring = [k for k in range(len(names)) if matrix[k].any()]
    return {
        "class_accuracy": {names[k]: round(100 * int(matrix[k, k]) / int(matrix[k].sum()), 4) for k in occurring},
        "confusion": {
            names[k]: {names[j]: int(matrix[k, j]) for j in np.flatnonzero(matrix[k]).tolist()} for k in occurring
        },
    }
