"""How sure a model is against how often it is right."""

from typing import Any

import numpy as np

BINS = 10


def reliability_bins(confidence: Any, correct: Any, count: int = BINS) -> list[tuple[float, float, int]]:
    """Mean confidence, share that is right, and number of examples, in bins of as nearly the same number as can be.

    Args:
        confidence: [N] 0 to 1.
        correct: [N] 0 or 1.
        count: of bins; none is empty.
    """
    sure, right = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    # Of examples with one confidence none is before the others: each counts as their mean.
    _, of = np.unique(sure, return_inverse=True)
    right = (np.bincount(of, right) / np.maximum(1, np.bincount(of)))[of]
    parts = np.array_split(np.argsort(sure, kind="stable"), count)
    return [(float(sure[part].mean()), float(right[part].mean()), len(part)) for part in parts if len(part)]


def expected_calibration_error(found: list[tuple[float, float, int]]) -> float:
    """Expected calibration error: the mean distance of confidence and accuracy (adaptive bins: Nguyen and O'Connor 2015)."""
    total = sum(size for _, _, size in found)
    return sum(size * abs(sure - right) for sure, right, size in found) / total if total else 0.0
