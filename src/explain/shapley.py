"""Shapley values of a set function: exact, or estimated from permutations.

Players are numbered; a coalition is a row of booleans, True for its members.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import factorial
from typing import Any

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


def all_coalitions(players: int) -> Bools:
    """Return all coalitions [2**players, players]; row r has player i if bit i of r is set."""
    return np.asarray((np.arange(2**players)[:, None] >> np.arange(players)) % 2 == 1)


def split_batches(masks: Bools, size: int) -> list[Bools]:
    """Split rows into batches of at most `size` and nearly equal length: a small batch costs almost as much as a full one."""
    return np.array_split(masks, -(-len(masks) // size))


def exact_values(values: Any) -> Floats:
    """Compute Shapley values from the values of all coalitions.

    phi_i = sum over S without i of |S|! (k - |S| - 1)! / k! (v(S with i) - v(S)) (Shapley 1953).

    Args:
        values: [..., 2**k] in the order of `all_coalitions`.

    Returns:
        [..., k]; they add up to the value of the full coalition less that of the empty one.
    """
    array = np.asarray(values, np.float64)
    players, sizes = _coalition_sizes(array)
    rows = np.arange(2**players)
    weights = np.array(
        [factorial(size) * factorial(players - size - 1) / factorial(players) for size in range(players)]
    )
    result = np.empty((*array.shape[:-1], players))
    for player in range(players):
        without = rows[(rows >> player) % 2 == 0]
        gains = array[..., without + (1 << player)] - array[..., without]
        result[..., player] = gains @ weights[sizes[without]]
    return result


def mean_by_size(values: Any) -> Floats:
    """Return the mean value of the coalitions of each size, [..., k + 1]: the expectation over random orders.

    Args:
        values: [..., 2**k] in the order of `all_coalitions`.
    """
    array = np.asarray(values, np.float64)
    players, sizes = _coalition_sizes(array)
    return np.stack([array[..., sizes == size].mean(axis=-1) for size in range(players + 1)], axis=-1)


def _coalition_sizes(values: Floats) -> tuple[int, npt.NDArray[np.int64]]:
    players = int(values.shape[-1]).bit_length() - 1
    return players, all_coalitions(players).sum(axis=1)


def smallest_set(unchanged: Any, target: Any, names: Sequence[str]) -> list[str] | None:
    """Find the fewest parts without which the prediction changes; among equal sets that with the lowest target without it.

    Args:
        unchanged: bool [2**k] in the order of `all_coalitions`, whether the prediction is that of the full coalition.
        target: [2**k].
        names: [k].

    Returns:
        Names; None if no set changes the prediction.
    """
    members = all_coalitions(len(names))
    changed = np.flatnonzero(~np.asarray(unchanged, bool))
    if not len(changed):
        return None
    best = min(changed.tolist(), key=lambda row: (int((~members[row]).sum()), float(target[row])))
    return [name for name, member in zip(names, members[best], strict=True) if not member]


def by_size(values: Any, players: int) -> tuple[Floats, Floats]:
    """Arrange values of coalitions that were drawn in rounds, one of every size in each.

    Args:
        values: [..., 2 + 2 R (k - 1)] of the empty and the full coalition, and for each round of coalitions of 1 to k - 1
            players, and of their complements, as `Permutations.masks`.
        players: k.

    Returns:
        [..., R, k + 1] of the coalitions of 0 to k players, and of the complements of these.
    """
    array = np.asarray(values, np.float64)
    steps = array[..., 2:].reshape(*array.shape[:-1], -1, 2, players - 1)
    shape = (*steps.shape[:-2], 1)
    ends = [np.broadcast_to(array[..., None, end : end + 1], shape) for end in (0, 1)]
    members = np.concatenate([ends[0], steps[..., 0, :], ends[1]], axis=-1)
    complements = np.concatenate([ends[1], steps[..., 1, :], ends[0]], axis=-1)
    return members, complements


@dataclass(frozen=True)
class Permutations:
    """Coalitions along random orders.

    Along each order players join one after another, and then leave in the same order: pairs of an order and its reverse,
    whose errors partly cancel (antithetic sampling: Mitchell et al. 2022, section 4).

    Attributes:
        orders: int [R, k].
        masks: bool [2 + 2 R (k - 1), k]: the empty and the full coalition, and for each order the k - 1 coalitions as
            players join and the k - 1 as they leave.
    """

    orders: npt.NDArray[np.int64]
    masks: Bools

    def shapley(self, values: Any) -> Floats:
        """Estimate Shapley values [..., k]; they add up to the value of the full coalition less that of the empty one."""
        joining, leaving = by_size(values, self.orders.shape[1])
        gains = (np.diff(joining, axis=-1) - np.diff(leaving, axis=-1)) / 2
        sums = np.zeros((*gains.shape[:-2], self.orders.shape[1]))
        for number, order in enumerate(self.orders):
            sums[..., order] += gains[..., number, :]
        return sums / len(self.orders)


def draw_permutations(players: int, rounds: int, seed: int) -> Permutations:
    """Draw random orders.

    Args:
        players: at least 2.
        rounds: number of orders.
        seed: of the orders.
    """
    generator = np.random.default_rng(seed)
    orders = np.stack([generator.permutation(players) for _ in range(rounds)])
    masks = [np.zeros((1, players), bool), np.ones((1, players), bool)]
    counts = np.arange(1, players)[:, None]
    for rank in np.argsort(orders, axis=1):
        masks += [rank < counts, rank >= counts]
    return Permutations(orders, np.concatenate(masks))
