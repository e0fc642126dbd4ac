"""How far apart two samples are, and how far apart two samples of the same data would be."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Counts = npt.NDArray[np.float64]
BINS = 10  # of the reference, with equal shares, for the index


def ks_statistic(one: Numbers, other: Numbers) -> float:
    """Kolmogorov's and Smirnov's statistic: the largest difference of two empirical distribution functions, 0 to 1.

    Args:
        one, other: [N], [M], without NaN; neither is empty.
    """
    one, other = np.sort(one), np.sort(other)
    both = np.concatenate([one, other])
    below = np.searchsorted(one, both, side="right") / len(one) - np.searchsorted(other, both, side="right") / len(
        other
    )
    return float(np.abs(below).max())


def jensen_shannon(one: Counts, other: Counts) -> float:
    """Jensen-Shannon distance with logarithms to base 2 (Endres & Schindelin 2003), 0 to 1.

    Args:
        one, other: [K] counts of the same categories; neither is all zero.
    """
    from scipy.spatial.distance import jensenshannon

    return float(np.nan_to_num(jensenshannon(one, other, base=2)))  # rounding can make a square a little negative


def psi(one: Counts, other: Counts) -> float:
    """Population stability index: Jeffreys' divergence sum((p - q) ln(p / q)) of two distributions, 0 or more.

    Half a count is added to each category, so that empty ones do not make it infinite.

    Args:
        one, other: [K] counts of the same categories.
    """
    p, q = ((each + 0.5) / (each.sum() + 0.5 * len(each)) for each in (one, other))
    return float(((p - q) * np.log(p / q)).sum())


def chi_square_test(one: Counts, other: Counts) -> tuple[float, float]:
    """The p-value of Pearson's test that two rows of counts are of one distribution, and its effect size, Cramér's V, 0 to 1."""
    from scipy.stats import chi2_contingency

    table = np.stack([one, other])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return 1.0, 0.0
    found = chi2_contingency(table, correction=False)
    return float(found.pvalue), float(np.sqrt(found.statistic / table.sum()))


def ks_p_value(one: Numbers, other: Numbers) -> float:
    """The p-value of the two-sample test of Kolmogorov and Smirnov, asymptotic; 1 for single values, which tell nothing."""
    from scipy.stats import ks_2samp

    return float(ks_2samp(one, other, method="asymp").pvalue) if min(len(one), len(other)) > 1 else 1.0


def bin_counts(reference: Numbers, new: Numbers) -> tuple[Counts, Counts]:
    """Counts of both in bins that have equal shares of the reference, as far as ties let them."""
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, BINS + 1)[1:-1]))
    return tuple(
        np.bincount(np.searchsorted(edges, each, side="left"), minlength=len(edges) + 1).astype(np.float64)
        for each in (reference, new)
    )  # type: ignore[return-value]


def category_counts(reference: Sequence[Any], new: Sequence[Any]) -> tuple[list[Any], Counts, Counts]:
    """The categories of both, sorted, and how often each has them."""
    names = sorted({*reference, *new}, key=str)
    at = {name: index for index, name in enumerate(names)}
    one, other = (
        np.bincount([at[value] for value in values], minlength=len(names)).astype(np.float64)
        for values in (reference, new)
    )
    return names, one, other


def null_thresholds(
    reference: Mapping[str, npt.NDArray[Any]],
    statistics: Mapping[str, Callable[[npt.NDArray[Any], npt.NDArray[Any]], float]],
    size: int,
    level: float,
    draws: int,
    seed: int = 0,
) -> dict[str, float]:
    """What each column's statistic stays below when nothing has changed, all columns at once in 1 - level of cases.

    Rows of the reference are drawn twice, with replacement, and compared with themselves; the largest deviation over all
    columns, each in its own standard deviations, gives one quantile for all (maxT: Westfall & Young 1993), so that many
    columns do not make many false alarms.

    Args:
        reference: [N] values by column, rows belonging together.
        statistics: of two samples of a column.
        size: of the new sample.
        level: false alarms of one comparison.
        draws: how often.
        seed: of them.
    """
    random = np.random.default_rng(seed)
    rows = len(next(iter(reference.values())))
    found = np.empty((draws, len(reference)))
    for draw in range(draws):
        one, other = random.integers(rows, size=rows), random.integers(rows, size=size)
        for at, (name, values) in enumerate(reference.items()):
            found[draw, at] = statistics[name](values[one], values[other])
    centre, spread = found.mean(axis=0), found.std(axis=0)
    scaled = (found - centre) / np.where(spread > 0, spread, 1.0)
    quantile = float(np.quantile(scaled.max(axis=1), 1 - level))
    return dict(zip(reference, (centre + quantile * spread).tolist(), strict=True))
