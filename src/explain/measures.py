"""What explanations are measured by. Each is a number for one example, from values that the model gave.

A curve is a model's probability [M] while cells (or groups) are shown, or hidden, more and more of them; its first
value is before anything was. Measures of a curve are read against those of a random order: on their own they
say more of the model and the data than of the explanation (Tomsett et al. 2020, arXiv 1912.01451).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Those that every task has, and what they mean.
COMMON = {
    "comprehensiveness": "how far the probability falls without the highest parts, less the fall in a random order",
    "sufficiency": "how much of the probability the highest parts alone keep, more than in a random order",
    "unlike_random": "one less the likeness to values of the same architecture at random weights",
    "agreement": "rank correlation with integrated gradients",
}
SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)  # of what there is, removed or kept: ERASER's bins


def share_counts(cells: int, shares: Sequence[float] = SHARES) -> list[int]:
    """How many of so many cells the shares are, at least one."""
    return [min(cells, max(1, round(share * cells))) for share in shares]


def curve_area(curve: Any, at: Any) -> Floats:
    """The area under curves [..., M] over 0 to 1, by trapezoids: insertion or deletion (RISE, Petsiuk et al. 2018).

    Args:
        curve: probabilities.
        at: [M] how many cells are shown, or hidden, at each: from 0 to all.
    """
    array, places = np.asarray(curve, np.float64), np.asarray(at, np.float64)
    return np.asarray(((array[..., :-1] + array[..., 1:]) / 2 @ np.diff(places)) / places[-1])


def comprehensiveness(deletion: Any, at: Any, shares: Sequence[float] = SHARES) -> Floats:
    """Comprehensiveness: p(x) - p(x without the top r), averaged over shares (DeYoung et al. 2020, arXiv 1911.03429).

    Args:
        deletion: [..., M] probabilities as the top cells are hidden, the highest first.
        at: [M] how many are hidden; the shares' numbers among them.
        shares: of the cells.
    """
    array = np.asarray(deletion, np.float64)
    return np.asarray(array[..., 0] - array[..., _places(at, shares)].mean(axis=-1))


def sufficiency(deletion: Any, insertion: Any, at: Any, shares: Sequence[float] = SHARES) -> Floats:
    """Sufficiency: p(x) - p(only the top r), averaged over shares; low is good (DeYoung et al. 2020).

    Args:
        deletion: its first value is p(x).
        insertion: [..., M] probabilities as the top cells are shown, the highest first.
        at: [M] how many are shown; the shares' numbers among them.
        shares: of the cells.
    """
    array = np.asarray(insertion, np.float64)
    return np.asarray(np.asarray(deletion, np.float64)[..., 0] - array[..., _places(at, shares)].mean(axis=-1))


def _places(at: Any, shares: Sequence[float]) -> npt.NDArray[np.int64]:
    known = np.asarray(at)
    return np.array([int(np.flatnonzero(known == count)[0]) for count in share_counts(int(known[-1]), shares)])


def pointing_game(values: Any, inside: Any) -> Floats:
    """1 where the highest value lies in the box (the pointing game, Zhang et al. 2018), else 0; the mean over ties.

    Args:
        values: [..., K].
        inside: [..., K] share of each cell that is in the box, 0 to 1.
    """
    array = np.asarray(values, np.float64)
    best = array == array.max(axis=-1, keepdims=True)
    return np.asarray((best * np.asarray(inside, np.float64)).sum(axis=-1) / best.sum(axis=-1))


def relevance_mass(values: Any, inside: Any) -> Floats:
    """The share of all positive values that lies in the box (relevance mass, Arras et al. 2022, arXiv 2003.07258).

    Args:
        values: [..., K]; NaN is returned where none is positive.
        inside: [..., K] share of each cell that is in the box.
    """
    positive = np.maximum(np.asarray(values, np.float64), 0)
    total = positive.sum(axis=-1)
    with np.errstate(invalid="ignore"):
        return np.asarray((positive * np.asarray(inside, np.float64)).sum(axis=-1) / np.where(total > 0, total, np.nan))


def share(values: Any, player: int = 0) -> Floats:
    """One player's share of all that is said: phi_i over the sum of |phi|, -1 to 1; 0 where all are 0.

    Args:
        values: [..., K].
        player: whose.
    """
    array = np.asarray(values, np.float64)
    total = np.abs(array).sum(axis=-1)
    return np.asarray(np.divide(array[..., player], total, out=np.zeros_like(total), where=total > 0))


def rank_correlation(one: Any, other: Any) -> Floats:
    """Spearman's rank correlation of values [..., K], ties at their mean rank; 0 where either is constant."""
    from scipy.stats import rankdata

    first, second = (rankdata(np.asarray(each, np.float64), axis=-1) for each in (one, other))
    first -= first.mean(axis=-1, keepdims=True)
    second -= second.mean(axis=-1, keepdims=True)
    scale = np.sqrt((first**2).sum(axis=-1) * (second**2).sum(axis=-1))
    return np.asarray(np.divide((first * second).sum(axis=-1), scale, out=np.zeros_like(scale), where=scale > 0))


def reliability(one: Any, other: Any) -> Floats:
    """How well the mean of two estimates would agree with the mean of two others: 2 r / (1 + r) (Spearman-Brown).

    Args:
        one, other: [..., K] estimates from two seeds.
    """
    r = rank_correlation(one, other)
    return np.asarray(np.where(r > -1, 2 * r / np.maximum(1 + r, 1e-12), -1.0))
