"""Measures of explanations: each is a number for one example.

A curve is the model's probability [M] while more and more cells (or groups) are visible, or hidden; its first value is that
of none. Measures of curves are compared with those of a random order: alone they depend more on model and data than on the
explanation (Tomsett et al. 2020, arXiv 1912.01451).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# The measures of every task, with their meanings.
COMMON = {
    "comprehensiveness": "decrease of the probability without the highest parts, minus that in a random order",
    "sufficiency": "share of the probability that the highest parts alone keep, more than in a random order",
    "unlike_random": "1 less the rank correlation with the values of the same architecture with random weights",
    "agreement": "rank correlation with integrated gradients",
}
SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)  # of the parts, removed or kept: the bins of ERASER


def share_counts(cells: int) -> list[int]:
    """Return the number of cells of each of `SHARES`, at least one."""
    return [min(cells, max(1, round(share * cells))) for share in SHARES]


def curve_area(curve: Any, counts: Any) -> Floats:
    """Return the area under curves [..., M] over 0 to 1, by trapezoids: insertion or deletion (RISE, Petsiuk et al. 2018).

    Args:
        curve: probabilities.
        counts: [M] numbers of visible, or hidden, cells: from 0 to all.
    """
    array, widths = np.asarray(curve, np.float64), np.asarray(counts, np.float64)
    return np.asarray(((array[..., :-1] + array[..., 1:]) / 2 @ np.diff(widths)) / widths[-1])


def comprehensiveness(deletion: Any, counts: Any) -> Floats:
    """Return p(x) - p(x without the top r), averaged over `SHARES` (DeYoung et al. 2020, arXiv 1911.03429).

    Args:
        deletion: [..., M] probabilities as the top cells are hidden, the highest first.
        counts: [M] numbers of hidden cells, among them those of the shares.
    """
    array = np.asarray(deletion, np.float64)
    return np.asarray(array[..., 0] - array[..., _share_indices(counts)].mean(axis=-1))


def sufficiency(deletion: Any, insertion: Any, counts: Any) -> Floats:
    """Return p(x) - p(only the top r), averaged over `SHARES`; low is good (DeYoung et al. 2020).

    Args:
        deletion: its first value is p(x).
        insertion: [..., M] probabilities as the top cells become visible, the highest first.
        counts: [M] numbers of visible cells, among them those of the shares.
    """
    array = np.asarray(insertion, np.float64)
    return np.asarray(np.asarray(deletion, np.float64)[..., 0] - array[..., _share_indices(counts)].mean(axis=-1))


def _share_indices(counts: Any) -> npt.NDArray[np.int64]:
    array = np.asarray(counts)
    return np.array([int(np.flatnonzero(array == count)[0]) for count in share_counts(int(array[-1]))])


def pointing_game(values: Any, inside: Any) -> Floats:
    """Return 1 if the highest value lies in the box (pointing game, Zhang et al. 2018), else 0; the mean over ties.

    Args:
        values: [..., K].
        inside: [..., K] share of each cell that is in the box, 0 to 1.
    """
    array = np.asarray(values, np.float64)
    best = array == array.max(axis=-1, keepdims=True)
    return np.asarray((best * np.asarray(inside, np.float64)).sum(axis=-1) / best.sum(axis=-1))


def relevance_mass(values: Any, inside: Any) -> Floats:
    """Return the share of all positive values that lies in the box (Arras et al. 2022, arXiv 2003.07258).

    Args:
        values: [..., K].
        inside: [..., K] share of each cell that is in the box.

    Returns:
        [...]; NaN where no value is positive.
    """
    positive = np.maximum(np.asarray(values, np.float64), 0)
    total = positive.sum(axis=-1)
    with np.errstate(invalid="ignore"):
        return np.asarray((positive * np.asarray(inside, np.float64)).sum(axis=-1) / np.where(total > 0, total, np.nan))


def first_share(values: Any) -> Floats:
    """Return the share of the first player, phi_0 over the sum of |phi|, -1 to 1; 0 where all values [..., K] are 0."""
    array = np.asarray(values, np.float64)
    total = np.abs(array).sum(axis=-1)
    return np.asarray(np.divide(array[..., 0], total, out=np.zeros_like(total), where=total > 0))


def rank_correlation(first: Any, second: Any) -> Floats:
    """Return Spearman's rank correlation of values [..., K], ties at their mean rank; 0 where either is constant."""
    from scipy.stats import rankdata

    first, second = (rankdata(np.asarray(values, np.float64), axis=-1) for values in (first, second))
    first -= first.mean(axis=-1, keepdims=True)
    second -= second.mean(axis=-1, keepdims=True)
    scale = np.sqrt((first**2).sum(axis=-1) * (second**2).sum(axis=-1))
    return np.asarray(np.divide((first * second).sum(axis=-1), scale, out=np.zeros_like(scale), where=scale > 0))


def reliability(first: Any, second: Any) -> Floats:
    """Return the expected correlation of the mean of two estimates with that of two others: 2 r / (1 + r) (Spearman-Brown).

    Args:
        first, second: [..., K] estimates from two seeds.
    """
    r = rank_correlation(first, second)
    return np.asarray(np.where(r > -1, 2 * r / np.maximum(1 + r, 1e-12), -1.0))
