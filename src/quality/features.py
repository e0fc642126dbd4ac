"""Outputs of a model for the drift comparison: predictions, confidences and features.

The task's own `model_outputs` runs the network; this module selects its rows and reduces its features.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from config.errors import InputError
from quality import tables
from quality.description import describe
from quality.facts import Facts

EXAMPLES = 512  # of each data set


@dataclass(frozen=True)
class ModelOutputs:
    """Outputs of a model for N examples.

    Attributes:
        predictions: [N] numbers (NaN for no prediction), or names of classes.
        confidence: [N] 0 to 1.
        features: float64 [N, D] of the last layer.
    """

    predictions: npt.NDArray[Any]
    confidence: npt.NDArray[np.float64]
    features: npt.NDArray[np.float64]


def sample_rows(facts: Facts, split: str, spill: Path) -> list[dict[str, Any]]:
    """Sample rows of a split: those with the smallest hashes of their ids, one of each group, as in the profile.

    Args:
        facts: of the data set.
        split: train or val.
        spill: folder for data that exceeds DuckDB's memory limit.

    Raises:
        InputError: there are none.
    """
    description = describe(facts.task)
    connection = tables.connect(facts.path, spill)
    rows = tables.query_rows(
        connection,
        f"select * from facts where split = '{split}' and number is not null and ({description.usable}) "
        f"qualify row_number() over (partition by {description.group} order by hash(id), id) = 1 "
        f"order by hash(id), id limit {EXAMPLES}",
    )
    connection.close()
    if not rows:
        raise InputError(f"the split {split} has no example for the model")
    return rows


def principal_components(
    reference: npt.NDArray[np.float64], new: npt.NDArray[np.float64], count: int
) -> tuple[Any, Any]:
    """Project both matrices on the principal components of the reference.

    Args:
        reference, new: [N, D], [M, D].
        count: maximal number of components.

    Returns:
        [N, K], [M, K].
    """
    mean = reference.mean(axis=0)
    _, values, directions = np.linalg.svd(reference - mean, full_matrices=False)
    components = directions[:count][values[:count] > 1e-9 * max(1.0, float(values[0]))]
    return (reference - mean) @ components.T, (new - mean) @ components.T
