"""What a model makes of a data set, for drift: its predictions, how sure it is of them, and the features they come from.

The network is the task's to run (`look` of its module); here are the rows that it is given and what comes back.
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

EXAMPLES = 512  # looked at of each data set


@dataclass(frozen=True)
class ModelOutputs:
    """What a model says of N examples.

    Attributes:
        predicted: [N] numbers (NaN for no prediction), or names of classes.
        confidence: [N] 0 to 1.
        features: float64 [N, D] of the last layer.
    """

    predicted: npt.NDArray[Any]
    confidence: npt.NDArray[np.float64]
    features: npt.NDArray[np.float64]


def sample_rows(facts: Facts, split: str, spill: Path) -> list[dict[str, Any]]:
    """The rows of a split with the smallest hashes of their ids, one of those that are alike, as in the profile.

    Args:
        facts: of the data set.
        split: train or val.
        spill: folder for what does not fit into memory.

    Raises:
        InputError: there are none.
    """
    description = describe(facts.task)
    connection = tables.connect(facts.path, spill)
    chosen = tables.query_rows(
        connection,
        f"select * from facts where split = '{split}' and number is not null and ({description.usable}) "
        f"qualify row_number() over (partition by {description.alike} order by hash(id), id) = 1 "
        f"order by hash(id), id limit {EXAMPLES}",
    )
    connection.close()
    if not chosen:
        raise InputError(f"there is no example in {split} for the model to look at")
    return chosen


def principal_components(
    reference: npt.NDArray[np.float64], new: npt.NDArray[np.float64], count: int
) -> tuple[Any, Any]:
    """Both on the reference's principal components.

    Args:
        reference, new: [N, D], [M, D].
        count: components at most.

    Returns:
        [N, K], [M, K].
    """
    centre = reference.mean(axis=0)
    _, values, directions = np.linalg.svd(reference - centre, full_matrices=False)
    kept = directions[:count][values[:count] > 1e-9 * max(1.0, float(values[0]))]
    return (reference - centre) @ kept.T, (new - centre) @ kept.T
