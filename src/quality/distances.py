"""Distances between two samples, and thresholds from samples of the same data."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Counts = npt.NDArray[np.float64]
BINS = 10  # quantile bins of the reference, for the population stability index


def ks_statistic(first: Numbers, second: Numbers) -> float:
    """Return the Kolmogorov-Smirnov statistic: the largest difference of two empirical distribution functions, 0 to 1.

    Args:
        first, second: [N], [M], without NaN; neither is empty.
    """
    first, second = np.sort(first), np.sort(second)
    values = np.concatenate([first, second])
    shares = [np.searchsorted(sample, values, side="right") / len(sample) for sample in (first, second)]
    return float(np.abs(shares[0] - shares[1]).max())


def ks_p_value(first: Numbers, second: Numbers) -> float:
    """Return the asymptotic p-value of the two-sample Kolmogorov-Smirnov test; 1 if a sample has a single value."""
    from scipy.stats import ks_2samp

    return float(ks_2samp(first, second, method="asymp").pvalue) if min(len(first), len(second)) > 1 else 1.0


def jensen_shannon(first: Counts, second: Counts) -> float:
    """Return the Jensen-Shannon distance with logarithms to base 2 (Endres & Schindelin 2003), 0 to 1.

    Args:
        first, second: [K] counts of the same categories; neither is all zero.
    """
    from scipy.spatial.distance import jensenshannon

    return float(np.nan_to_num(jensenshannon(first, second, base=2)))  # rounding can make a square slightly negative


def psi(first: Counts, second: Counts) -> float:
    """Return the population stability index, Jeffreys' divergence sum((p - q) ln(p / q)), 0 or more.

    Half a count is added to each category, so that empty ones do not make it infinite.

    Args:
        first, second: [K] counts of the same categories.
    """
    p, q = ((counts + 0.5) / (counts.sum() + 0.5 * len(counts)) for counts in (first, second))
    return float(((p - q) * np.log(p / q)).sum())


def chi_square_test(first: Counts, second: Counts) -> tuple[float, float]:
    """Return the p-value of Pearson's test that two rows of counts have one distribution, and Cramér's V, 0 to 1."""
    from scipy.stats import chi2_contingency

    table = np.stack([first, second])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return 1.0, 0.0
    result = chi2_contingency(table, correction=False)
    return float(result.pvalue), float(np.sqrt(result.statistic / table.sum()))


def exclusive_p_value(first: Counts, second: Counts, draws: int) -> float:
    """Return the p-value of a permutation test on the rows in categories that only one of two samples has.

    The rows of both samples are divided at random into samples of the same sizes; the p-value is the share of divisions,
    the observed one among them, with at least as many such rows (Phipson & Smyth 2010). 1 without such rows.

    Args:
        first, second: [K] counts of the same categories.
        draws: number of divisions; the p-value is at least 1 / (draws + 1).
    """
    total = (first + second).astype(np.int64)

    def exclusive_rows(counts: npt.NDArray[Any]) -> npt.NDArray[Any]:
        exclusive: npt.NDArray[Any] = np.where((counts == 0) | (counts == total), total, 0).sum(axis=-1)
        return exclusive

    observed = int(exclusive_rows(second))
    if not observed:
        return 1.0
    random, extreme, done = np.random.default_rng(0), 0, 0
    while done < draws:
        size = min(draws - done, max(1, 2_000_000 // len(total)))
        samples = random.multivariate_hypergeometric(total, int(second.sum()), size, method="marginals")
        extreme, done = extreme + int((exclusive_rows(samples) >= observed).sum()), done + size
    return (1 + extreme) / (draws + 1)


def bin_counts(reference: Numbers, new: Numbers) -> tuple[Counts, Counts]:
    """Count the values of both samples in the quantile bins of the reference; ties make bins unequal."""
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, BINS + 1)[1:-1]))
    return tuple(
        np.bincount(np.searchsorted(edges, sample, side="left"), minlength=len(edges) + 1).astype(np.float64)
        for sample in (reference, new)
    )  # type: ignore[return-value]


def category_counts(reference: Sequence[Any], new: Sequence[Any]) -> tuple[list[Any], Counts, Counts]:
    """Return the sorted categories of both samples, and their counts in each."""
    names = sorted({*reference, *new}, key=str)
    index = {name: number for number, name in enumerate(names)}
    first, second = (
        np.bincount([index[value] for value in sample], minlength=len(names)).astype(np.float64)
        for sample in (reference, new)
    )
    return names, first, second


def null_thresholds(
    reference: Mapping[str, npt.NDArray[Any]],
    statistics: Mapping[str, Callable[[npt.NDArray[Any], npt.NDArray[Any]], float]],
    size: int,
    level: float,
    draws: int,
) -> dict[str, float]:
    """Return thresholds that all columns together exceed with probability `level` if nothing has changed.

    Two samples of the reference are drawn with replacement and compared. The largest deviation over all columns, in
    standard deviations of each column, gives one quantile for all of them (maxT: Westfall & Young 1993), so that the
    false alarm rate does not grow with the number of columns.

    Args:
        reference: [N] values by column; the rows of the columns belong together.
        statistics: distance of two samples by column.
        size: number of rows of the new sample.
        level: false alarm rate of one comparison.
        draws: number of pairs of samples.
    """
    random = np.random.default_rng(0)
    rows = len(next(iter(reference.values())))
    values = np.empty((draws, len(reference)))
    for draw in range(draws):
        first, second = random.integers(rows, size=rows), random.integers(rows, size=size)
        for column, (name, sample) in enumerate(reference.items()):
            values[draw, column] = statistics[name](sample[first], sample[second])
    centre, spread = values.mean(axis=0), values.std(axis=0)
    scaled = (values - centre) / np.where(spread > 0, spread, 1.0)
    quantile = float(np.quantile(scaled.max(axis=1), 1 - level))
    return dict(zip(reference, (centre + quantile * spread).tolist(), strict=True))
