"""Calibration: confidence of a model compared with its accuracy."""

from typing import Any

import numpy as np


def reliability_bins(confidence: Any, correct: Any, count: int = 10) -> list[tuple[float, float, int]]:
    """Divide examples into bins of (nearly) equal size by their confidence.

    Args:
        confidence: [N] 0 to 1.
        correct: [N] 0 or 1.
        count: Number of bins; empty ones are left out.

    Returns:
        Mean confidence, accuracy and number of examples of each bin.
    """
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    # Examples of the same confidence have no order: each counts with their mean accuracy.
    _, index = np.unique(confidence, return_inverse=True)
    accuracy = (np.bincount(index, correct) / np.maximum(1, np.bincount(index)))[index]
    bins = np.array_split(np.argsort(confidence, kind="stable"), count)
    return [(float(confidence[rows].mean()), float(accuracy[rows].mean()), len(rows)) for rows in bins if len(rows)]


def expected_calibration_error(bins: list[tuple[float, float, int]]) -> float:
    """Return the mean distance of confidence and accuracy over bins of equal size (Nguyen and O'Connor 2015)."""
    total = sum(size for _, _, size in bins)
    return sum(size * abs(confidence - accuracy) for confidence, accuracy, size in bins) / total if total else 0.0
