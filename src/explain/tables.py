"""Explained examples as a table: one row for each, one column for each measure."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from explain import measures, shapley

Table = dict[str, npt.NDArray[Any]]


def stack_rows(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Rows with the same keys as one array for each key."""
    lists: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in row.items():
            lists.setdefault(name, []).append(value)
    return {name: np.array(column) for name, column in lists.items()}


def exact_measures(example: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of an example all of whose coalitions were asked, and its measures of `measures.COMMON`.

    Args:
        example: `values` [k], `coalitions` [2**k] of a log-probability, `gradients` [k], `correct`, `confidence`, `cluster`, and
            `null` [k], values at random weights, if those were asked.

    Returns:
        `correct`, `confidence`, `cluster`, `stability`, `additivity`, `finite`, and the measures.
    """
    values, coalitions = example["values"], example["coalitions"]
    probability = np.exp(coalitions)
    insertion, deletion = coalition_curves(values, probability)
    middle, at = shapley.mean_by_size(probability), np.arange(len(values) + 1)
    return {
        "correct": float(example["correct"]),
        "confidence": float(example["confidence"]),
        "cluster": example["cluster"],
        "stability": 1.0,  # exact: there is no seed
        "additivity": additivity_error(values, coalitions[0], coalitions[-1]),
        "comprehensiveness": float(
            measures.comprehensiveness(deletion, at) - measures.comprehensiveness(middle[::-1], at)
        ),
        "sufficiency": float(
            measures.sufficiency(middle[::-1], middle, at) - measures.sufficiency(deletion, insertion, at)
        ),
        "unlike_random": 1 - float(measures.rank_correlation(values, example["null"])) if "null" in example else np.nan,
        "agreement": float(measures.rank_correlation(values, example["gradients"])),
        "finite": float(np.isfinite(values).all()),
    }


def coalition_curves(values: Any, coalitions: Any) -> tuple[Any, Any]:
    """The curves [k + 1] of a function of all coalitions as its highest groups are shown, and hidden, one by one.

    Args:
        values: [k] that order them.
        coalitions: [2**k] in the order of `shapley.all_coalitions`.
    """
    order = np.argsort(-np.asarray(values), kind="stable")
    shown = np.concatenate([[0], np.cumsum(1 << order)])
    return coalitions[shown], coalitions[len(coalitions) - 1 - shown]


def additivity_error(values: Any, nothing: float, everything: float) -> float:
    """How far values are from adding up to what they should, relative to that, or to 1."""
    gap = everything - nothing
    return float(abs(np.sum(values) - gap) / max(1.0, abs(gap)))


def permutation_drop(example: Mapping[str, Any]) -> float:
    """How far the probability falls with another example's text in the place of this one's.

    Args:
        example: `coalitions`, and `asked` [R] the target with others, NaN where it cannot be told.

    Returns:
        NaN if it was told of none.
    """
    others = example["asked"]
    return (
        float(np.exp(example["coalitions"])[-1] - np.nanmean(np.exp(others))) if np.isfinite(others).any() else np.nan
    )


def area_gain(at: Any, curves: Any, random: Any) -> float:
    """How much more area insertion has, and how much less deletion, than in a random order.

    Args:
        at: [M] how many parts are shown, or hidden.
        curves: [2, M] probabilities of insertion and deletion.
        random: [2, M] in a random order.
    """
    ours, others = measures.curve_area(curves, at), measures.curve_area(random, at)
    return float(ours[0] - others[0] + others[1] - ours[1])


def exact_area_gain(values: Any, coalitions: Any) -> float:
    """`gain` of an example all of whose coalitions were asked.

    Args:
        values: [k] that order its parts.
        coalitions: [2**k] of a log-probability.
    """
    probability = np.exp(coalitions)
    middle = shapley.mean_by_size(probability)
    curves = np.stack(coalition_curves(values, probability))
    return area_gain(np.arange(len(values) + 1), curves, np.stack([middle, middle[::-1]]))
