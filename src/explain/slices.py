"""Accuracy and explanations by kind of example: where a model is worse than elsewhere, and where it is surer than right."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from explain.tables import Table
from runs import calibration
from runs.statistics import bootstrap_difference, bootstrap_mean

FEWEST = 8  # examples of a slice that is shown
CLASSES = 24  # more than so many are too many slices

SliceNames = dict[str, list[str]]


def class_slices(labels: Sequence[str]) -> SliceNames:
    """The class of each example as its slice, where the classes are few."""
    return {"class": list(labels)} if len(set(labels)) <= CLASSES else {}


def tercile_slices(name: str, values: npt.NDArray[np.float64], form: str, unknown: str = "unknown") -> SliceNames:
    """The third of each example by a number: low, between or high.

    Args:
        name: of the slices.
        values: [N]; NaN where the number is not known.
        form: how a number is written, as of str.format.
        unknown: the slice of those that are not known.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return {}
    low, high = np.quantile(known, (1 / 3, 2 / 3))
    above = np.where(values > high, f"more than {form.format(high)}", "between")
    names = np.where(values <= low, f"up to {form.format(low)}", above)
    return {name: np.where(np.isnan(values), unknown, names).tolist()}


def compare_slices(table: Table, names: SliceNames, shown: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """One row for each slice of enough examples.

    Args:
        table: of the explainer.
        names: the slice of each example, by kind.
        shown: measures.
        seed: of the bootstrap.

    Returns:
        by, slice, examples, accuracy, gap (accuracy of the rest, less its own) with its 95 % interval, and each measure's mean;
        those with the widest gap first.
    """
    rows = []
    for by, members in names.items():
        for name in sorted(set(members)):
            inside = np.array(members) == name
            if inside.sum() < FEWEST or inside.all():
                continue
            gap = bootstrap_difference(table["correct"], inside, seed=seed)
            rows.append(
                {
                    "by": by,
                    "slice": name,
                    "examples": int(inside.sum()),
                    "accuracy": float(table["correct"][inside].mean()),
                    "gap": [gap.value, gap.low, gap.high],
                    "measures": {measure: bootstrap_mean(table[measure][inside], draws=1).value for measure in shown},
                }
            )
    return sorted(rows, key=lambda row: -row["gap"][0])


def summarise_calibration(table: Table) -> dict[str, Any]:
    """How sure the model is against how often it is right: bins [sure, right, examples], and the expected error."""
    bins = calibration.reliability_bins(table["confidence"], table["correct"])
    return {"error": calibration.expected_calibration_error(bins), "bins": [list(row) for row in bins]}


def describe_worst(rows: Sequence[Mapping[str, Any]], gap: float) -> str:
    """What is said of a slice whose gap is certainly wider than this; "" if there is none."""
    for row in rows:
        if row["gap"][1] > gap:
            return (
                f"accuracy in the slice {row['by']} {row['slice']} is {row['gap'][0]:.2f} below the rest's "
                f"[{row['gap'][1]:.2f}, {row['gap'][2]:.2f}], more than explain.slice_gap={gap:g}"
            )
    return ""
