"""Accuracy and measures of slices of the sample, and the calibration of the model's confidence."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from explain.tables import Table
from runs import calibration
from runs.statistics import bootstrap_difference, bootstrap_mean

MIN_EXAMPLES = 8  # of a slice
MAX_CLASSES = 24  # more classes are not slices

SliceNames = dict[str, list[str]]


def class_slices(labels: Sequence[str]) -> SliceNames:
    """Return the class of each example as its slice; nothing for many classes."""
    return {"class": list(labels)} if len(set(labels)) <= MAX_CLASSES else {}


def tercile_slices(name: str, values: npt.NDArray[np.float64], form: str, unknown: str = "unknown") -> SliceNames:
    """Return the tercile of each example by a number.

    Args:
        name: of the slices.
        values: [N]; NaN if unknown.
        form: format of a number, as of str.format.
        unknown: slice of unknown numbers.
    """
    finite = values[~np.isnan(values)]
    if not len(finite):
        return {}
    low, high = np.quantile(finite, (1 / 3, 2 / 3))
    above = np.where(values > high, f"more than {form.format(high)}", "between")
    names = np.where(values <= low, f"up to {form.format(low)}", above)
    return {name: np.where(np.isnan(values), unknown, names).tolist()}


def compare_slices(table: Table, names: SliceNames, measures: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """Compare each slice of enough examples with the rest.

    Args:
        table: of the explainer.
        names: the slice of each example, by kind of slice.
        measures: names of the measures to report.
        seed: of the bootstrap.

    Returns:
        Rows with by, slice, examples, accuracy, gap (accuracy of the rest less that of the slice) with its 95 % interval,
        and the mean of each measure; the widest gaps first.
    """
    rows = []
    for kind, members in names.items():
        for name in sorted(set(members)):
            inside = np.array(members) == name
            if inside.sum() < MIN_EXAMPLES or inside.all():
                continue
            gap = bootstrap_difference(table["correct"], inside, seed=seed)
            rows.append(
                {
                    "by": kind,
                    "slice": name,
                    "examples": int(inside.sum()),
                    "accuracy": float(table["correct"][inside].mean()),
                    "gap": [gap.value, gap.low, gap.high],
                    "measures": {
                        measure: bootstrap_mean(table[measure][inside], draws=1).value for measure in measures
                    },
                }
            )
    return sorted(rows, key=lambda row: -row["gap"][0])


def summarise_calibration(table: Table) -> dict[str, Any]:
    """Return reliability bins [confidence, accuracy, examples] and the expected calibration error."""
    bins = calibration.reliability_bins(table["confidence"], table["correct"])
    return {"error": calibration.expected_calibration_error(bins), "bins": [list(row) for row in bins]}


def describe_worst(rows: Sequence[Mapping[str, Any]], gap: float) -> str:
    """Describe the first slice whose gap is significantly wider than a limit; "" if there is none."""
    for row in rows:
        value, low, high = row["gap"]
        if low > gap:
            return (
                f"the accuracy in the slice {row['by']} {row['slice']} is {value:.2f} below that of the rest "
                f"[{low:.2f}, {high:.2f}], more than explain.slice_gap={gap:g}"
            )
    return ""
