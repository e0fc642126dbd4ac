"""Bootstrap confidence intervals of means, and corrected p-values."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

DRAWS = 10_000
_MAX_MULTINOMIAL = 1000  # clusters; with more, drawing indices takes less time and memory


@dataclass(frozen=True)
class MeanEstimate:
    """A mean with its confidence interval.

    Attributes:
        value: Mean of all examples; NaN without examples.
        low, high: 95 % confidence interval.
        p: One-sided p-value: chance of such a mean, or a higher one, if the true mean is the bound.
        examples: Number of examples.
        clusters: Number of clusters.
    """

    value: float
    low: float
    high: float
    p: float
    examples: int
    clusters: int


def bootstrap_mean(
    values: Any, clusters: Any = None, bound: float = 0.0, seed: int = 0, draws: int = DRAWS
) -> MeanEstimate:
    """Estimate a mean with a cluster bootstrap: examples of one document or class are not independent.

    The interval is the percentile interval (Efron and Tibshirani 1993, chapter 13), the p-value the share of draws at or below
    the bound, with one added to both numbers (Davison and Hinkley 1997, section 4.2).

    Args:
        values: [N]; NaN values are left out.
        clusters: [N], cluster of each example; by default each example is its own.
        bound: Value that the mean is tested against.
        seed: Seed of the draws.
        draws: Number of draws.
    """
    array = np.asarray(values, np.float64)
    valid = ~np.isnan(array)
    array = array[valid]
    index, count = _cluster_index(clusters, valid)
    if not len(array):
        return MeanEstimate(np.nan, np.nan, np.nan, 1.0, 0, 0)
    value = float(array.mean())
    if count < 2:  # nothing to resample
        return MeanEstimate(value, -np.inf, np.inf, 1.0, len(array), count)
    sums, sizes = np.bincount(index, array, count), np.bincount(index, minlength=count)
    generator = np.random.default_rng(seed)
    if count <= _MAX_MULTINOMIAL:
        weights = generator.multinomial(count, np.full(count, 1 / count), size=draws).astype(np.float64)
        means = (weights @ sums) / (weights @ sizes)
    else:
        parts = []
        for start in range(0, draws, step := max(1, 2**21 // count)):
            rows = generator.integers(count, size=(min(step, draws - start), count), dtype=np.int32)
            parts.append(sums[rows].sum(axis=1) / sizes[rows].sum(axis=1))
        means = np.concatenate(parts)
    return _estimate(value, means, bound, len(array), count)


def bootstrap_difference(values: Any, selected: Any, seed: int = 0) -> MeanEstimate:
    """Estimate how far the mean of some examples lies below that of the rest, by a bootstrap of the examples.

    Draws in which either side is empty are left out.

    Args:
        values: [N].
        selected: bool [N], the examples that may have the lower mean.
        seed: Seed of the draws.
    """
    array, mask = np.asarray(values, np.float64), np.asarray(selected, bool)
    count = len(array)
    if not mask.any() or mask.all():
        return MeanEstimate(np.nan, np.nan, np.nan, 1.0, count, count)
    value = float(array[~mask].mean() - array[mask].mean())
    generator = np.random.default_rng(seed)
    sides = np.stack([~mask, mask], axis=1)
    sums, sizes = np.where(sides, array[:, None], 0), sides.astype(np.float64)
    parts = []
    for start in range(0, DRAWS, step := max(1, 2**22 // count)):
        size = min(step, DRAWS - start)
        weights = generator.multinomial(count, np.full(count, 1 / count), size=size).astype(np.float64)
        totals, counts = weights @ sums, weights @ sizes
        means = np.divide(totals, counts, out=np.full(totals.shape, np.nan), where=counts > 0)
        parts.append(means[:, 0] - means[:, 1])
    gaps = np.concatenate(parts)
    gaps = gaps[~np.isnan(gaps)]
    if len(gaps) < DRAWS / 2:
        return MeanEstimate(value, -np.inf, np.inf, 1.0, count, count)
    return _estimate(value, gaps, 0.0, count, count)


def _cluster_index(clusters: Any, valid: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.intp], int]:
    """Index of the cluster of each valid example, and the number of clusters."""
    names = np.arange(len(valid)) if clusters is None else np.asarray(clusters)
    _, index = np.unique(names[valid], return_inverse=True)
    return index, int(index.max(initial=-1)) + 1


def _estimate(value: float, draws: Floats, bound: float, examples: int, clusters: int) -> MeanEstimate:
    low, high = np.quantile(draws, (0.025, 0.975))
    p = (1 + int((draws <= bound).sum())) / (len(draws) + 1)
    return MeanEstimate(value, float(low), float(high), p, examples, clusters)


def decimal_places(*values: float) -> int:
    """Return the digits after the decimal point to print: two; below 1, four significant ones of the largest value."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return 3 - math.floor(math.log10(largest)) if 1e-12 < largest < 1 else 2


def format_interval(mean: MeanEstimate | None) -> str:
    """Format an interval as `low to high`; "" if it is unknown or infinite."""
    if mean is None or not (math.isfinite(mean.low) and math.isfinite(mean.high)):
        return ""
    digits = decimal_places(mean.low, mean.high)
    return f"{mean.low:.{digits}f} to {mean.high:.{digits}f}"


def holm_correction(values: Mapping[str, float]) -> dict[str, float]:
    """Correct p-values for multiple tests; they bound the family-wise error rate (Holm 1979)."""
    corrected: dict[str, float] = {}
    highest = 0.0
    for rank, name in enumerate(sorted(values, key=lambda name: values[name])):
        highest = max(highest, min(1.0, (len(values) - rank) * values[name]))
        corrected[name] = highest
    return corrected
