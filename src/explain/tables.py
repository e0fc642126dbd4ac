"""The table of measures: one row for each example, one column for each measure."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from explain import measures, shapley

Table = dict[str, npt.NDArray[Any]]


def stack_rows(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Stack rows with equal keys into one array for each key."""
    columns: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return {name: np.array(column) for name, column in columns.items()}


def curve_measures(example: Mapping[str, Any], counts: Any, curves: Any, random: Any) -> dict[str, float]:
    """Compute the measures of `measures.COMMON`, and `finite`.

    Args:
        example: `values` [k], `gradients` [k], and optionally `null` [k], the values with random weights.
        counts: [M] numbers of visible, or hidden, parts.
        curves: [2, M] probabilities of insertion and deletion.
        random: [2, M] in a random order.
    """
    values, (insertion, deletion), (random_insertion, random_deletion) = example["values"], curves, random
    null_correlation = float(measures.rank_correlation(values, example["null"])) if "null" in example else np.nan
    return {
        "comprehensiveness": float(
            measures.comprehensiveness(deletion, counts) - measures.comprehensiveness(random_deletion, counts)
        ),
        "sufficiency": float(
            measures.sufficiency(random_deletion, random_insertion, counts)
            - measures.sufficiency(deletion, insertion, counts)
        ),
        "unlike_random": 1 - null_correlation,
        # Models in ONNX have no gradients: the measure is not there.
        "agreement": float(measures.rank_correlation(values, example["gradients"]))
        if not np.isnan(example["gradients"]).all()
        else np.nan,
        "finite": float(np.isfinite(values).all()),
    }


def exact_measures(example: Mapping[str, Any]) -> dict[str, Any]:
    """Compute the row of an example with the values of all coalitions.

    Args:
        example: of `curve_measures`, with `coalitions` [2**k] of a log-probability, `correct`, `confidence`, `cluster`.

    Returns:
        `correct`, `confidence`, `cluster`, `stability`, `additivity`, and the result of `curve_measures`.
    """
    values, coalitions = example["values"], example["coalitions"]
    return {
        "correct": float(example["correct"]),
        "confidence": float(example["confidence"]),
        "cluster": example["cluster"],
        "stability": 1.0,  # exact: there is no seed
        "additivity": additivity_error(values, coalitions[0], coalitions[-1]),
        **curve_measures(example, *exact_curves(values, coalitions)),
    }


def exact_curves(values: Any, coalitions: Any) -> tuple[Any, Any, Any]:
    """Return the arguments of `area_gain` from the values of all coalitions.

    Args:
        values: [k] of the parts.
        coalitions: [2**k] of a log-probability, in the order of `shapley.all_coalitions`.
    """
    probability = np.exp(coalitions)
    random = shapley.mean_by_size(probability)
    order = np.argsort(-np.asarray(values), kind="stable")  # the highest first
    visible = np.concatenate([[0], np.cumsum(1 << order)])  # coalitions, as in `shapley.all_coalitions`
    curves = probability[np.stack([visible, len(probability) - 1 - visible])]
    return np.arange(len(values) + 1), curves, np.stack([random, random[::-1]])


def additivity_error(values: Any, empty: float, full: float) -> float:
    """Return the difference of the sum of values from `full - empty`, relative to that or to 1."""
    gap = full - empty
    return float(abs(np.sum(values) - gap) / max(1.0, abs(gap)))


def permutation_drop(example: Mapping[str, Any]) -> float:
    """Return the fall of the probability with the texts of other examples in the place of this one's.

    Args:
        example: `coalitions`, and `asked` [R], the target with other texts, NaN if unknown.

    Returns:
        NaN if all are unknown.
    """
    replaced = example["asked"]
    if not np.isfinite(replaced).any():
        return np.nan
    return float(np.exp(example["coalitions"])[-1] - np.nanmean(np.exp(replaced)))


def area_gain(counts: Any, curves: Any, random: Any) -> float:
    """Return the gain of insertion area plus the loss of deletion area, compared with a random order.

    Args:
        counts: [M] numbers of visible, or hidden, parts.
        curves: [2, M] probabilities of insertion and deletion.
        random: [2, M] in a random order.
    """
    areas, random_areas = measures.curve_area(curves, counts), measures.curve_area(random, counts)
    return float(areas[0] - random_areas[0] + random_areas[1] - areas[1])
