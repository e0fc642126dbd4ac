"""Shapley values of a set function by regression, from fewer coalitions than orders need.

An additive game is fitted to random coalitions and their complements, as Kernel SHAP does (Lundberg and Lee 2017; in pairs: Covert
and Lee 2021; as many of each size: Musco and Witter 2025). Interactions of two players cancel within a pair. Those of three are
fitted too, with a penalty (kernel ridge regression), and their Shapley values, which are known, are added: a control variate
(PolySHAP, Fumagalli et al. 2026; regression adjustment, Witter et al. 2025).

The values add up, and are exact for additive games. What no term fits has the Kernel SHAP values 0, so that the values converge to
the Shapley values as coalitions are added, and are exact where all coalitions of a size occur equally often. Like Kernel SHAP, and
unlike the mean over orders, they have a bias, which decreases faster than the standard error.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from explain.shapley import Bools, Floats

NOISE = 0.001  # variance of what no term fits, relative to the interactions of neighbours
GLOBAL = 0.3  # variance of the interactions of any three players, relative to those of neighbours
FLOOR = 0.02  # players interact in proportion to their absolute value, plus this share of its root mean square
FITS = 3  # the first with equal interactions of all players
REACH = 12  # three cells are neighbours up to this sum of their squared distances
WIDTH = 6.0  # decrease of the variance with that sum
NEGLIGIBLE = 1e-5  # variance of a triple, relative to the largest
BATCH = 1024  # pairs fitted at once, or two rounds: the cost of a fit is cubic in them
CHUNK = 4096  # triples at once


class Triples(NamedTuple):
    """Sets of three neighbouring players.

    Attributes:
        members: int [T, 3].
        variance: [T] expected variance of their interaction, relative to that of others.
    """

    members: npt.NDArray[np.int64]
    variance: Floats


def draw_coalitions(players: int, rounds: int, seed: int) -> Bools:
    """Draw random coalitions, in each round one of every size, and the complements.

    In the first and every second round they are those along one order, whose differences are precise for players without
    influence; in the others members are balanced, which is best for the regression.

    Args:
        players: at least 3.
        rounds: R.
        seed: of the players' names.

    Returns:
        [2 + 2 R (k - 1), k] in the order of `shapley.Permutations.masks`: the empty and the full coalition, and for each round
        coalitions of 1 to k - 1 players, and their complements.
    """
    generator = np.random.default_rng(seed)
    masks = [np.zeros((1, players), bool), np.ones((1, players), bool)]
    for number in range(rounds):
        members = _balanced_block(players) if number % 2 else np.tri(players - 1, players, dtype=bool)
        members = members[:, generator.permutation(players)]
        masks += [members, ~members]
    return np.concatenate(masks)


@lru_cache
def _balanced_block(players: int) -> Bools:
    """Return coalitions [k - 1, k] of 1 to k - 1 players in which every two players occur together about equally often.

    Members are exchanged while that lowers the squares of the off-diagonal elements of the regression's normal matrix.
    """
    sizes = np.arange(1, players)
    ranks = np.argsort(np.random.default_rng(0).random((players - 1, players)), axis=1)
    signs = np.where(ranks < sizes[:, None], 1.0, -1.0)
    weights = 1 / (sizes * (players - sizes))
    normal = signs.T @ (weights[:, None] * signs)
    for _ in range(3):
        for row, weight in zip(signs, weights, strict=True):
            normal -= weight * np.outer(row, row)
            gradient, diagonal = normal @ row, normal.diagonal()
            while True:
                leaves = int(np.argmax(np.where(row > 0, gradient - diagonal, -np.inf)))
                joins = int(np.argmin(np.where(row < 0, gradient + diagonal, np.inf)))
                change = gradient[joins] - gradient[leaves] + diagonal[joins] + diagonal[leaves]
                if change - 2 * normal[leaves, joins] >= -1e-9:
                    break
                row[leaves], row[joins] = -1.0, 1.0
                gradient += 2 * (normal[:, joins] - normal[:, leaves])
            normal += weight * np.outer(row, row)
    return np.asarray(signs > 0)


@lru_cache
def grid_triples(side: int) -> Triples:
    """Return the triples of neighbouring cells of a grid, whose cells are counted row by row."""
    positions = np.stack(np.divmod(np.arange(side**2), side), axis=1)
    distances = ((positions[:, None] - positions) ** 2).sum(axis=2)
    members, spreads = [], []
    for cell in range(side**2):
        near = cell + 1 + np.flatnonzero(distances[cell, cell + 1 :] <= REACH)
        second, third = (near[rows] for rows in np.triu_indices(len(near), 1))
        spread = distances[cell, second] + distances[cell, third] + distances[second, third]
        inside = spread <= REACH
        members.append(np.stack([np.full(int(inside.sum()), cell), second[inside], third[inside]], axis=1))
        spreads.append(spread[inside])
    return Triples(np.concatenate(members), np.exp(-np.concatenate(spreads) / WIDTH))


def estimate(masks: Sequence[Bools], values: Sequence[Floats], triples: Triples) -> Floats:
    """Estimate Shapley values [k]; they add up to the value of the full coalition less that of the empty one.

    Args:
        masks: one or more results of `draw_coalitions`.
        values: [E] of each.
        triples: neighbours, whose interactions are expected to be the largest.
    """
    players = masks[0].shape[1]
    total = float(values[0][1] - values[0][0]) / 2
    coalitions = np.concatenate([rows[2:].reshape(-1, 2, players - 1, players)[:, 0] for rows in masks])
    sides = np.concatenate([row[2:].reshape(-1, 2, players - 1) for row in values])
    odd = (sides[:, 0] - sides[:, 1]) / 2  # even interactions cancel
    count = max(1, min(coalitions[..., 0].size // BATCH, len(coalitions) // 2))
    parts = zip(np.array_split(coalitions, count), np.array_split(odd, count), strict=True)
    fits = [_fit(rows.reshape(-1, players), part.ravel(), total, triples) for rows, part in parts]
    return np.asarray(np.mean(fits, axis=0))


def _fit(coalitions: Bools, odd: Floats, total: float, triples: Triples) -> Floats:
    """Fit half the difference between coalitions and complements: signs @ values / 2 + interactions + noise."""
    count, players = coalitions.shape
    members = np.concatenate([coalitions, np.ones((1, players), bool)])
    signs = np.where(members, 1.0, -1.0)
    products = np.where(members[:, triples.members].sum(axis=2) % 2, np.int8(1), np.int8(-1))
    observed, linear, sizes = np.append(odd, total), signs / 2, coalitions.sum(axis=1)
    noise = np.zeros(count + 1)  # none in the last row: the values add up
    noise[:-1] = NOISE * 4 * sizes * (players - sizes) / players**2  # the weights of Kernel SHAP
    scale = np.ones(players)
    for _ in range(FITS):
        variance = triples.variance * scale[triples.members].prod(axis=1)
        variance /= variance.sum()
        influential = np.flatnonzero(variance > NEGLIGIBLE * variance.max())
        covariance = GLOBAL * _global_covariance(signs, scale)
        for part in _chunks(influential):
            interactions = products[:, part].astype(np.float64)
            covariance += interactions * variance[part] @ interactions.T
        covariance[np.diag_indices(count + 1)] += noise
        weighted = np.linalg.solve(covariance, np.column_stack([linear, observed]))
        additive = np.linalg.solve(linear.T @ weighted[:, :-1], linear.T @ weighted[:, -1])
        residual = weighted[:, -1] - weighted[:, :-1] @ additive
        values = additive + GLOBAL * _global_values(signs, scale, residual)
        for part in _chunks(influential):
            # The interaction of the full less that of the empty coalition is twice its coefficient: a third for each member.
            shares = 2 / 3 * variance[part] * (residual @ products[:, part])
            values += np.bincount(triples.members[part].ravel(), np.repeat(shares, 3), players)
        size = np.sqrt(np.mean(values**2))
        scale = FLOOR + np.abs(values) / (size if size > 0 else 1.0)
    return np.asarray(values)


def _chunks(rows: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    return [rows[first : first + CHUNK] for first in range(0, len(rows), CHUNK)]


def _global_covariance(signs: Floats, scale: Floats) -> Floats:
    """Return that of the interactions of any three players: their elementary symmetric polynomial, by Newton's identities."""
    first, third = (signs * scale) @ signs.T, (signs * scale**3) @ signs.T
    squares = (scale**2).sum()
    return np.asarray((first**3 - 3 * first * squares + 2 * third) / (6 * _global_variance(scale)))


def _global_values(signs: Floats, scale: Floats, residual: Floats) -> Floats:
    """Return the Shapley values [k] of these interactions, from sums over the other players."""
    scaled = signs * scale
    sums, squares = scaled.sum(axis=1, keepdims=True) - scaled, (scale**2).sum() - scale**2
    return np.asarray(2 / 3 * (residual @ (scaled * (sums**2 - squares))) / (2 * _global_variance(scale)))


def _global_variance(scale: Floats) -> float:
    first, second, third = (float((scale**power).sum()) for power in (1, 2, 3))
    return (first**3 - 3 * first * second + 2 * third) / 6
