"""The difference of two models on the same examples: how large it is, how well it is known, whether it is chance.

What is drawn again are whole clusters, for examples of one document, or class, are alike. Where a side has several runs their
variance counts too: an interval then holds for other examples and for other seeds. With one run a side it holds for other
examples only.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]

DRAWS = 10_000
POWER = 0.8  # chance to find a difference as large as the smallest that could have been shown
_AT_ONCE = 2**21  # numbers drawn at once


@dataclass(frozen=True)
class McNemar:
    """Examples that one side has right and the other wrong.

    Attributes:
        only_a, only_b: how many.
        p: exact, two-sided: that so uneven a split of them is chance (McNemar 1947; binomial).
    """

    only_a: int
    only_b: int
    p: float


@dataclass(frozen=True)
class PairedDifference:
    """Side b less side a.

    Attributes:
        a, b: means of the two.
        value: b - a.
        low, high: its 95 % interval.
        p: that so large a difference, either way, is chance.
        test: what gave p: "permutation" of the sides, cluster by cluster, or "seeds": Welch's t over both variances.
        mcnemar: of values that are right or wrong, one run a side; else None.
        effect: mean of the examples' differences over their standard deviation (Cohen's d for pairs); 0 if all are alike.
        detectable: smallest true difference that this sample would have shown (p < 0.05, uncorrected) with a chance of 80 %.
        examples, clusters: compared.
        runs: of side a and of side b.
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
    """Compares two models on the same examples.

    With one run a side the interval is BCa (Efron 1987): percentiles of draws of whole clusters, corrected for bias and skewness, the
    latter from leaving out one cluster after another. Its percentiles are those of Student's t, and widened by what drawing few
    clusters loses of their variance (expanded percentiles: Hesterberg 2015, section 4.5).

    With several runs it is Student's over both levels: the draws' variance, of other examples, and the runs', of other seeds, which is
    estimated and not drawn, for of three runs too few different ones can be drawn. What runs differ by on single examples is in
    both, and counted once. Degrees of freedom are Satterthwaite's (1946). Where only one side has several runs, the other's are
    taken to spread as much.

    Args:
        a: [R, N] or [N], of each run and example.
        b: [S, N] or [N].
        clusters: [N], whatever names each example's; None: each is one of its own.
        seed: of the draws.
        draws: how many.
    """
    sides = [np.atleast_2d(np.asarray(each, np.float64)) for each in (a, b)]
    count = sides[0].shape[1]
    names = np.arange(count) if clusters is None else np.asarray(clusters)
    groups, of = np.unique(names, return_inverse=True)
    sizes = np.bincount(of).astype(np.float64)
    sums = [np.stack([np.bincount(of, run) for run in side], axis=1).astype(np.float64) for side in sides]
    means = [each.mean(axis=1) for each in sides]
    gaps = sides[1].mean(axis=0) - sides[0].mean(axis=0)
    value, runs = float(gaps.mean()), (len(sides[0]), len(sides[1]))
    found = _interval(sums, sizes, seed, draws)
    if max(runs) == 1 or not found.error or not math.isfinite(found.error):
        p, test = permutation_test(np.bincount(of, gaps), seed, draws), "permutation"
    else:
        p, test = 2 * float(special.stdtr(found.freedom, -abs(value) / found.error)), "seeds"
    spread = float(gaps.std(ddof=1)) if count > 1 else 0.0
    alike = spread <= 1e-12 * max(1.0, abs(value))
    needed = float(special.stdtrit(found.freedom, 0.975) + special.stdtrit(found.freedom, POWER)) * found.error
    return PairedDifference(
        a=float(means[0].mean()), b=float(means[1].mean()), value=value, low=found.low, high=found.high, p=p, test=test,
        mcnemar=mcnemar_test(sides[0][0], sides[1][0]) if max(runs) == 1 else None,
        effect=0.0 if alike else value / spread, detectable=needed if len(groups) > 1 else math.inf,
        examples=count, clusters=len(groups), runs=runs,
    )  # fmt: skip


@dataclass(frozen=True)
class _Interval:
    """Its ends, the standard error of the difference, and its degrees of freedom."""

    low: float
    high: float
    error: float
    freedom: float


def _interval(sums: list[Floats], sizes: Floats, seed: int, draws: int) -> _Interval:
    """Of a difference, from sums [C, R] of each side by cluster and run."""
    clusters, total = len(sizes), float(sizes.sum())
    gaps = sums[1].mean(axis=1) - sums[0].mean(axis=1)
    value = float(gaps.sum() / total)
    if clusters < 2:
        return _Interval(-math.inf, math.inf, math.inf, 1.0)
    drawn = _drawn(gaps, sizes, seed, draws)
    examples = float(drawn.var()) * clusters / (clusters - 1)
    of_runs = _of_runs([side.sum(axis=0) / total for side in sums])
    runs = sum(each for each, _ in of_runs)
    variance = max(examples, runs, examples + runs - _shared(sums, sizes))
    if variance <= (1e-12 * max(1.0, abs(value))) ** 2:  # every example differs by the same
        return _Interval(value, value, 0.0, clusters - 1.0)
    freedom = variance**2 / sum(each**2 / free for each, free in [(examples, clusters - 1), *of_runs] if each)
    error = math.sqrt(variance)
    percentile = float(special.stdtrit(freedom, 0.975))
    if of_runs:
        return _Interval(value - percentile * error, value + percentile * error, error, freedom)
    wide = error / float(drawn.std()) * percentile
    below = ((drawn < value).mean() + (drawn <= value).mean()) / 2
    bias = float(special.ndtri(np.clip(below, 1 / draws, 1 - 1 / draws)))
    left_out = (gaps.sum() - gaps) / (total - sizes)
    off = left_out.mean() - left_out
    scale = float((off**2).sum()) ** 1.5
    skewness = float((off**3).sum()) / (6 * scale) if scale else 0.0
    ends = [float(special.ndtr(bias + (bias + z) / max(1e-3, 1 - skewness * (bias + z)))) for z in (-wide, wide)]
    low, high = np.quantile(drawn, ends)
    return _Interval(float(low), float(high), error, freedom)


def _drawn(gaps: Floats, sizes: Floats, seed: int, draws: int) -> Floats:
    """Differences [draws] with clusters drawn again."""
    generator, clusters = np.random.default_rng(seed), len(sizes)
    equal = bool((sizes == sizes[0]).all())
    found = []
    for at in range(0, draws, step := max(1, _AT_ONCE // clusters)):
        rows = generator.integers(clusters, size=(min(step, draws - at), clusters), dtype=np.int32)
        found.append(gaps[rows].sum(axis=1) / (sizes[0] * clusters if equal else sizes[rows].sum(axis=1)))
    return np.concatenate(found)


def _of_runs(means: list[Floats]) -> list[tuple[float, int]]:
    """Variances that runs [R] give to the difference, with degrees of freedom; none if each side has one."""
    known = [(float(each.var(ddof=1)), len(each)) for each in means if len(each) > 1]
    if len(known) == 1 and min(map(len, means)) == 1:  # one estimate for both sides
        spread, count = known[0]
        return [(spread * (1 + 1 / count), count - 1)]
    return [(spread / count, count - 1) for spread, count in known]


def _shared(sums: list[Floats], sizes: Floats) -> float:
    """What the variance of examples and that of runs both hold: how runs differ by cluster, beyond their means."""
    clusters, total = len(sizes), float(sizes.sum())
    found = 0.0
    for side in sums:
        runs = side.shape[1]
        if runs > 1:
            own = side - sizes[:, None] * (side.sum(axis=0) / total)
            found += float(own.var(axis=1, ddof=1).sum()) / runs * clusters / (clusters - 1) / total**2
    return found


def permutation_test(gaps: Any, seed: int = 0, draws: int = DRAWS) -> float:
    """Chance of sums as far from 0 if the sides could as well be swapped, cluster by cluster (Fisher 1935).

    Args:
        gaps: [C] sums of the differences in each cluster.
        seed: of the draws.
        draws: how many; one is added, the sides as they are (Phipson and Smyth 2010).
    """
    array = np.asarray(gaps, np.float64)
    array = array[array != 0]  # to swap these changes nothing
    if not len(array):
        return 1.0
    generator = np.random.default_rng(seed)
    least = abs(float(array.sum())) - 1e-9 * float(np.abs(array).sum())
    found, bytes_ = 0, -(-len(array) // 8)
    for at in range(0, draws, step := max(1, _AT_ONCE // len(array))):
        count = min(step, draws - at)
        bits = np.frombuffer(generator.bytes(count * bytes_), np.uint8).reshape(count, bytes_)
        swapped = np.unpackbits(bits, axis=1, count=len(array)).astype(np.float64)
        found += int((np.abs(array.sum() - 2 * (swapped @ array)) >= least).sum())
    return (1 + found) / (draws + 1)


def mcnemar_test(a: Any, b: Any) -> McNemar | None:
    """McNemar's exact test; None where values [N] are not all 0 or one other number, right or wrong."""
    one, other = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if len(np.setdiff1d(np.concatenate([one, other]), [0.0])) > 1:
        return None
    only_a, only_b = int(((one > 0) & (other == 0)).sum()), int(((one == 0) & (other > 0)).sum())
    discordant = only_a + only_b
    p = min(1.0, 2 * float(special.bdtr(min(only_a, only_b), discordant, 0.5))) if discordant else 1.0
    return McNemar(only_a, only_b, p)
