"""What is said of a mean, and of many of them: intervals and corrected p-values."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

DRAWS = 10_000
MANY = 1000  # clusters


@dataclass(frozen=True)
class MeanEstimate:
    """A mean and how well it is known.

    Attributes:
        value: of all examples; NaN of none.
        low, high: 95 % interval.
        p: chance of such a mean, or a higher one, if the true one were the bound.
        examples: that it is of.
        clusters: that these belong to.
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
    """A mean with a bootstrap interval, whole clusters drawn: examples of one document, or class, are alike.

    The interval is the percentiles' (Efron and Tibshirani 1993, chapter 13), the p-value the share of draws at or below
    the bound, with one added above and below (Davison and Hinkley 1997, section 4.2).

    Args:
        values: [N]; those that are NaN were not measured, and are left out.
        clusters: [N], whatever names each example's; None: each is one of its own.
        bound: that the mean is tested against.
        seed: of the draws.
        draws: how many.
    """
    array = np.asarray(values, np.float64)
    kept = ~np.isnan(array)
    array = array[kept]
    names = np.arange(len(kept)) if clusters is None else np.asarray(clusters)
    _, of = np.unique(names[kept], return_inverse=True)
    count = int(of.max(initial=-1)) + 1
    if not len(array):
        return MeanEstimate(np.nan, np.nan, np.nan, 1.0, 0, 0)
    value = float(array.mean())
    if count < 2:  # nothing to draw from
        return MeanEstimate(value, -np.inf, np.inf, 1.0, len(array), count)
    sums, sizes = np.bincount(of, array, count), np.bincount(of, minlength=count)
    generator = np.random.default_rng(seed)
    if count <= MANY:
        drawn = generator.multinomial(count, np.full(count, 1 / count), size=draws).astype(np.float64)
        means = (drawn @ sums) / (drawn @ sizes)
    else:  # the same with less memory, and quicker where clusters are many
        parts = []
        for at in range(0, draws, step := max(1, 2**21 // count)):
            rows = generator.integers(count, size=(min(step, draws - at), count), dtype=np.int32)
            parts.append(sums[rows].sum(axis=1) / sizes[rows].sum(axis=1))
        means = np.concatenate(parts)
    low, high = np.quantile(means, (0.025, 0.975))
    p = (1 + int((means <= bound).sum())) / (draws + 1)
    return MeanEstimate(value, float(low), float(high), p, len(array), count)


def decimal_places(*values: float) -> int:
    """Digits after the point: two, and of values below one as many as show four significant ones of the largest."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return 3 - math.floor(math.log10(largest)) if 1e-12 < largest < 1 else 2


def format_interval(found: MeanEstimate | None) -> str:
    """An interval's ends; empty where they are not known."""
    if found is None or not (math.isfinite(found.low) and math.isfinite(found.high)):
        return ""
    digits = decimal_places(found.low, found.high)
    return f"{found.low:.{digits}f} to {found.high:.{digits}f}"


def holm_correction(values: Mapping[str, float]) -> dict[str, float]:
    """p-values corrected for their number (Holm 1979): each is at most the chance of any false alarm among all."""
    found: dict[str, float] = {}
    highest = 0.0
    for place, name in enumerate(sorted(values, key=lambda each: values[each])):
        highest = max(highest, min(1.0, (len(values) - place) * values[name]))
        found[name] = highest
    return found


def bootstrap_difference(
    values: Any, chosen: Any, clusters: Any = None, seed: int = 0, draws: int = DRAWS
) -> MeanEstimate:
    """How far the mean of some examples lies below that of the others, with a bootstrap interval as in `mean`.

    Args:
        values: [N].
        chosen: bool [N], the examples that may lie below.
        clusters: [N].
        seed: of the draws.
        draws: how many; those in which either side is empty are left out.
    """
    array, some = np.asarray(values, np.float64), np.asarray(chosen, bool)
    names = np.arange(len(array)) if clusters is None else np.asarray(clusters)
    _, of = np.unique(names, return_inverse=True)
    count = int(of.max(initial=-1)) + 1
    if not some.any() or some.all():
        return MeanEstimate(np.nan, np.nan, np.nan, 1.0, len(array), count)
    value = float(array[~some].mean() - array[some].mean())
    if count < 2:  # nothing to draw from
        return MeanEstimate(value, -np.inf, np.inf, 1.0, len(array), count)
    generator = np.random.default_rng(seed)
    sums = np.stack([np.bincount(of, np.where(side, array, 0), count) for side in (~some, some)], axis=1)
    sizes = np.stack([np.bincount(of, side, count) for side in (~some, some)], axis=1)
    parts = []
    for at in range(0, draws, step := max(1, 2**22 // count)):
        drawn = generator.multinomial(count, np.full(count, 1 / count), size=min(step, draws - at)).astype(np.float64)
        total, size = drawn @ sums, drawn @ sizes
        means = np.divide(total, size, out=np.full(total.shape, np.nan), where=size > 0)
        parts.append(means[:, 0] - means[:, 1])
    gaps = np.concatenate(parts)
    gaps = gaps[~np.isnan(gaps)]
    if len(gaps) < draws / 2:
        return MeanEstimate(value, -np.inf, np.inf, 1.0, len(array), count)
    low, high = np.quantile(gaps, (0.025, 0.975))
    return MeanEstimate(
        value, float(low), float(high), (1 + int((gaps <= 0).sum())) / (len(gaps) + 1), len(array), count
    )
