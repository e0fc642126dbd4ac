"""Comparison of two models on the same examples: difference, confidence interval and p-value.

Whole clusters are resampled because examples of one document or class are not independent. If a side has several runs,
their variance is included: the interval then holds for other examples and other seeds. With one run per side it holds for
other examples only.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]

DRAWS = 10_000
POWER = 0.8  # of the minimum detectable difference
_BATCH = 2**21  # numbers drawn at a time


@dataclass(frozen=True)
class McNemar:
    """Examples on which exactly one side is correct.

    Attributes:
        only_a, only_b: Their numbers.
        p: Exact two-sided p-value for equal proportions (McNemar 1947; binomial).
    """

    only_a: int
    only_b: int
    p: float


@dataclass(frozen=True)
class PairedDifference:
    """Side b minus side a.

    Attributes:
        a, b: Means of the two sides.
        value: b - a.
        low, high: 95 % confidence interval of the difference.
        p: Two-sided p-value for no difference.
        test: Source of p: "permutation" of the sides, cluster by cluster, or "seeds": Welch's t over both variances.
        mcnemar: For one run per side and values that are correct or not; otherwise None.
        effect: Mean of the differences over their standard deviation (Cohen's d for pairs); 0 if all are equal.
        detectable: Minimum detectable difference: the smallest true one that this sample shows (p < 0.05, uncorrected) with a
            power of 80 %.
        examples, clusters: Numbers of examples and clusters.
        runs: Numbers of runs of side a and side b.
    """

    a: float
    b: float
    value: float
    low: float
    high: float
    p: float
    test: str
    mcnemar: McNemar | None
    effect: float
    detectable: float
    examples: int
    clusters: int
    runs: tuple[int, int]


def paired_difference(a: Any, b: Any, clusters: Any = None, seed: int = 0, draws: int = DRAWS) -> PairedDifference:
    """Compare two models on the same examples.

    With one run per side the interval is BCa (Efron 1987): percentiles of resampled clusters, corrected for bias and skewness, the
    latter by the jackknife over clusters. The percentiles are those of Student's t, and expanded by the variance that is lost when
    few clusters are drawn (Hesterberg 2015, section 4.5).

    With several runs it is Student's t interval over two variances: that of other examples, from the draws, and that of other
    seeds, which is estimated from the runs, as three runs are too few to resample. How runs differ on single examples is in both
    variances and counted once. The degrees of freedom are Satterthwaite's (1946). If only one side has several runs, the
    variance of the other side's seeds is assumed to be equal.

    Args:
        a: [R, N] or [N], values by run and example.
        b: [S, N] or [N].
        clusters: [N], cluster of each example; by default each example is its own.
        seed: Seed of the draws.
        draws: Number of draws.
    """
    sides = [np.atleast_2d(np.asarray(side, np.float64)) for side in (a, b)]
    count = sides[0].shape[1]
    names, index = np.unique(np.arange(count) if clusters is None else np.asarray(clusters), return_inverse=True)
    sizes = np.bincount(index).astype(np.float64)
    sums = [np.stack([np.bincount(index, run) for run in side], axis=1).astype(np.float64) for side in sides]
    means = [float(side.mean(axis=1).mean()) for side in sides]
    gaps = sides[1].mean(axis=0) - sides[0].mean(axis=0)
    value, runs = float(gaps.mean()), (len(sides[0]), len(sides[1]))
    interval = _interval(sums, sizes, seed, draws)
    if max(runs) == 1 or not interval.error or not math.isfinite(interval.error):
        p, test = permutation_test(np.bincount(index, gaps), seed, draws), "permutation"
    else:
        p, test = 2 * float(special.stdtr(interval.freedom, -abs(value) / interval.error)), "seeds"
    deviation = float(gaps.std(ddof=1)) if count > 1 else 0.0
    constant = deviation <= 1e-12 * max(1.0, abs(value))
    quantiles = float(special.stdtrit(interval.freedom, 0.975) + special.stdtrit(interval.freedom, POWER))
    return PairedDifference(
        a=means[0], b=means[1], value=value, low=interval.low, high=interval.high, p=p, test=test,
        mcnemar=mcnemar_test(sides[0][0], sides[1][0]) if max(runs) == 1 else None,
        effect=0.0 if constant else value / deviation,
        detectable=quantiles * interval.error if len(names) > 1 else math.inf,
        examples=count, clusters=len(names), runs=runs,
    )  # fmt: skip


@dataclass(frozen=True)
class _Interval:
    """A confidence interval, the standard error of the difference, and its degrees of freedom."""

    low: float
    high: float
    error: float
    freedom: float


def _interval(sums: list[Floats], sizes: Floats, seed: int, draws: int) -> _Interval:
    """Interval of a difference, from the sums [C, R] of each side by cluster and run."""
    clusters, total = len(sizes), float(sizes.sum())
    gaps = sums[1].mean(axis=1) - sums[0].mean(axis=1)
    value = float(gaps.sum() / total)
    if clusters < 2:
        return _Interval(-math.inf, math.inf, math.inf, 1.0)
    resampled = _resample(gaps, sizes, seed, draws)
    example_variance = float(resampled.var()) * clusters / (clusters - 1)
    run_variances = _run_variances([side.sum(axis=0) / total for side in sums])
    run_variance = sum(variance for variance, _ in run_variances)
    variance = max(example_variance, run_variance, example_variance + run_variance - _shared_variance(sums, sizes))
    if variance <= (1e-12 * max(1.0, abs(value))) ** 2:  # all examples have the same difference
        return _Interval(value, value, 0.0, clusters - 1.0)
    parts = [(example_variance, clusters - 1), *run_variances]
    freedom = variance**2 / sum(part**2 / part_freedom for part, part_freedom in parts if part)
    error = math.sqrt(variance)
    percentile = float(special.stdtrit(freedom, 0.975))
    if run_variances:
        return _Interval(value - percentile * error, value + percentile * error, error, freedom)
    expanded = error / float(resampled.std()) * percentile
    below = ((resampled < value).mean() + (resampled <= value).mean()) / 2
    bias = float(special.ndtri(np.clip(below, 1 / draws, 1 - 1 / draws)))
    jackknife = (gaps.sum() - gaps) / (total - sizes)
    deviations = jackknife.mean() - jackknife
    scale = float((deviations**2).sum()) ** 1.5
    skewness = float((deviations**3).sum()) / (6 * scale) if scale else 0.0
    ends = [
        float(special.ndtr(bias + (bias + z) / max(1e-3, 1 - skewness * (bias + z)))) for z in (-expanded, expanded)
    ]
    low, high = np.quantile(resampled, ends)
    return _Interval(float(low), float(high), error, freedom)


def _resample(gaps: Floats, sizes: Floats, seed: int, draws: int) -> Floats:
    """Differences [draws] of resampled clusters."""
    generator, clusters = np.random.default_rng(seed), len(sizes)
    equal = bool((sizes == sizes[0]).all())
    parts = []
    for start in range(0, draws, step := max(1, _BATCH // clusters)):
        rows = generator.integers(clusters, size=(min(step, draws - start), clusters), dtype=np.int32)
        parts.append(gaps[rows].sum(axis=1) / (sizes[0] * clusters if equal else sizes[rows].sum(axis=1)))
    return np.concatenate(parts)


def _run_variances(means: list[Floats]) -> list[tuple[float, int]]:
    """Variances of the difference due to runs [R], with degrees of freedom; empty if each side has one run."""
    variances = [(float(side.var(ddof=1)), len(side)) for side in means if len(side) > 1]
    if len(variances) == 1 and min(map(len, means)) == 1:  # one estimate for both sides
        variance, count = variances[0]
        return [(variance * (1 + 1 / count), count - 1)]
    return [(variance / count, count - 1) for variance, count in variances]


def _shared_variance(sums: list[Floats], sizes: Floats) -> float:
    """The part that both variances contain: how runs differ by cluster, beyond their means."""
    clusters, total = len(sizes), float(sizes.sum())
    shared = 0.0
    for side in sums:
        runs = side.shape[1]
        if runs > 1:
            residuals = side - sizes[:, None] * (side.sum(axis=0) / total)
            shared += float(residuals.var(axis=1, ddof=1).sum()) / runs * clusters / (clusters - 1) / total**2
    return shared


def permutation_test(gaps: Any, seed: int = 0, draws: int = DRAWS) -> float:
    """Return the p-value of a sum if the sides are exchangeable within each cluster (Fisher 1935).

    Args:
        gaps: [C] sums of the differences in each cluster.
        seed: Seed of the draws.
        draws: Number of draws; the observed sum counts as one more (Phipson and Smyth 2010).
    """
    array = np.asarray(gaps, np.float64)
    array = array[array != 0]  # swapping these changes nothing
    if not len(array):
        return 1.0
    generator = np.random.default_rng(seed)
    observed = abs(float(array.sum())) - 1e-9 * float(np.abs(array).sum())
    extreme, width = 0, -(-len(array) // 8)
    for start in range(0, draws, step := max(1, _BATCH // len(array))):
        count = min(step, draws - start)
        bits = np.frombuffer(generator.bytes(count * width), np.uint8).reshape(count, width)
        swapped = np.unpackbits(bits, axis=1, count=len(array)).astype(np.float64)
        extreme += int((np.abs(array.sum() - 2 * (swapped @ array)) >= observed).sum())
    return (1 + extreme) / (draws + 1)


def mcnemar_test(a: Any, b: Any) -> McNemar | None:
    """Compute McNemar's exact test; None unless all values [N] are 0 or one other number."""
    values_a, values_b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if len(np.setdiff1d(np.concatenate([values_a, values_b]), [0.0])) > 1:
        return None
    only_a = int(((values_a > 0) & (values_b == 0)).sum())
    only_b = int(((values_a == 0) & (values_b > 0)).sum())
    discordant = only_a + only_b
    p = min(1.0, 2 * float(special.bdtr(min(only_a, only_b), discordant, 0.5))) if discordant else 1.0
    return McNemar(only_a, only_b, p)
