"""Accuracy and explanations by kind of example: where a model is worse than elsewhere, and where it is surer than right."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from explain.judge import Table
from runs import calibration
from runs.questions import asked
from runs.statistics import difference, mean

FEWEST = 8  # examples of a slice that is shown
CLASSES = 24  # more than so many are too many slices

Names = dict[str, list[str]]


def of_questions(questions: Sequence[str], golds: Sequence[str]) -> Names:
    """The slices that each question is in: its type, and the length of its answer."""
    return {
        "question": [asked(each) for each in questions],
        "answer": [_length(len(each.split())) for each in golds],
    }


def _length(words: int) -> str:
    return "no answer" if not words else "1 word" if words == 1 else "2 to 4 words" if words < 5 else "5 words and more"


def of_images(labels: Sequence[str], area: npt.NDArray[np.float64]) -> Names:
    """The slices that each image is in: its class, where they are few, and the size of its object."""
    found: Names = {}
    if len(set(labels)) <= CLASSES:
        found["class"] = list(labels)
    known = area[~np.isnan(area)]
    if len(known):
        small, large = np.quantile(known, (1 / 3, 2 / 3))
        sizes = np.where(
            area <= small, f"up to {small:.0%}", np.where(area > large, f"more than {large:.0%}", "between")
        )
        found["object"] = np.where(np.isnan(area), "no box", sizes).tolist()
    return found


def compared(table: Table, names: Names, shown: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """One row for each slice of enough examples.

    Args:
        table: of `explain.judge`.
        names: the slice of each example, by kind.
        shown: measures.
        seed: of the bootstrap.

    Returns:
        by, slice, examples, accuracy, gap (accuracy of the rest, less its own) with its 95 % interval, and each measure's mean;
        those with the widest gap first.
    """
    rows = []
    for by, of in names.items():
        for name in sorted(set(of)):
            inside = np.array(of) == name
            if inside.sum() < FEWEST or inside.all():
                continue
            gap = difference(table["correct"], inside, seed=seed)
            rows.append(
                {
                    "by": by,
                    "slice": name,
                    "examples": int(inside.sum()),
                    "accuracy": float(table["correct"][inside].mean()),
                    "gap": [gap.value, gap.low, gap.high],
                    "measures": {each: mean(table[each][inside], draws=1).value for each in shown},
                }
            )
    return sorted(rows, key=lambda row: -row["gap"][0])


def calibrated(table: Table) -> dict[str, Any]:
    """How sure the model is against how often it is right: bins [sure, right, examples], and the expected error."""
    found = calibration.bins(table["confidence"], table["correct"])
    return {"error": calibration.error(found), "bins": [list(each) for each in found]}


def worst(rows: Sequence[Mapping[str, Any]], gap: float) -> str:
    """What is said of a slice whose gap is certainly wider than this; "" if there is none."""
    for row in rows:
        if row["gap"][1] > gap:
            return (
                f"accuracy in the slice {row['by']} {row['slice']} is {row['gap'][0]:.2f} below the rest's "
                f"[{row['gap'][1]:.2f}, {row['gap'][2]:.2f}], more than explain.slice_gap={gap:g}"
            )
    return ""
