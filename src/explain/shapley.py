"""Shapley values of a set function from its values: exactly, or from permutations.

Players are numbered; a coalition is a row of booleans, True for the players who are there.
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
    """All coalitions [2**players, players]; row r has player i where bit i of r is set."""
    return np.asarray((np.arange(2**players)[:, None] >> np.arange(players)) % 2 == 1)


def split_batches(masks: Bools, size: int) -> list[Bools]:
    """Rows in batches of at most `size`, all as large as can be: a small last one costs nearly as much as a whole."""
    return np.array_split(masks, -(-len(masks) // size))


def exact_values(values: Any) -> Floats:
    """The Shapley values of a function whose values at all coalitions are known.

    phi_i = sum over S without i of |S|! (k - |S| - 1)! / k! (v(S with i) - v(S)) (Shapley 1953).

    Args:
        values: [..., 2**k] in the order of `coalitions`.

    Returns:
        [..., k]; they add up to the value of all less that of none.
    """
    array = np.asarray(values, np.float64)
    players = int(array.shape[-1]).bit_length() - 1
    rows = np.arange(2**players)
    sizes = all_coalitions(players).sum(axis=1)
    weights = np.array(
        [factorial(size) * factorial(players - size - 1) / factorial(players) for size in range(players)]
    )
    found = np.empty((*array.shape[:-1], players))
    for player in range(players):
        without = rows[(rows >> player) % 2 == 0]
        gains = array[..., without + (1 << player)] - array[..., without]
        found[..., player] = gains @ weights[sizes[without]]
    return found


def mean_by_size(values: Any) -> Floats:
    """The mean value over all coalitions of each size, [..., k + 1]: what a random order gives, exactly.

    Args:
        values: [..., 2**k] in the order of `coalitions`.
    """
    array = np.asarray(values, np.float64)
    players = int(array.shape[-1]).bit_length() - 1
    sizes = all_coalitions(players).sum(axis=1)
    return np.stack([array[..., sizes == size].mean(axis=-1) for size in range(players + 1)], axis=-1)


def smallest_set(same: Any, target: Any, names: Sequence[str]) -> list[str] | None:
    """The fewest parts without which the answer is another; of several such sets the one that the target falls most without.

    Args:
        same: bool [2**k] in the order of `coalitions`.
        target: [2**k].
        names: [k].

    Returns:
        Names; None if no set changes the answer.
    """
    here = all_coalitions(len(names))
    changed = np.flatnonzero(~np.asarray(same, bool))
    if not len(changed):
        return None
    best = min(changed.tolist(), key=lambda row: (int((~here[row]).sum()), float(target[row])))
    return [name for name, there in zip(names, here[best], strict=True) if not there]


@dataclass(frozen=True)
class Permutations:
    """Coalitions along random orders, there and back.

    Along each order players come one after another until all are there, and then leave in the same order: pairs of an
    order and its reverse, whose errors partly cancel (antithetic sampling: Mitchell et al. 2022, section 4).

    Attributes:
        orders: int [R, k].
        masks: bool [2 + 2 R (k - 1), k]: nobody, everybody, and for each order the k - 1 steps there and the k - 1 back.
    """

    orders: npt.NDArray[np.int64]
    masks: Bools

    def paths(self, values: Any) -> tuple[Floats, Floats]:
        """The values along each order.

        Args:
            values: [..., E] of `masks`.

        Returns:
            [..., R, k + 1] from nobody to everybody as players come, and the same from everybody to nobody as they leave.
        """
        array = np.asarray(values, np.float64)
        rounds, players = self.orders.shape
        steps = array[..., 2:].reshape(*array.shape[:-1], rounds, 2, players - 1)
        ends = [np.broadcast_to(array[..., None, end : end + 1], (*array.shape[:-1], rounds, 1)) for end in (0, 1)]
        there = np.concatenate([ends[0], steps[..., 0, :], ends[1]], axis=-1)
        back = np.concatenate([ends[1], steps[..., 1, :], ends[0]], axis=-1)
        return there, back

    def shapley(self, values: Any) -> Floats:
        """Estimates [..., k]; they add up to the value of all less that of none, whatever was drawn."""
        there, back = self.paths(values)
        gains = (np.diff(there, axis=-1) - np.diff(back, axis=-1)) / 2
        found = np.zeros((*gains.shape[:-2], self.orders.shape[1]))
        for number, order in enumerate(self.orders):
            found[..., order] += gains[..., number, :]
        return found / len(self.orders)


def draw_permutations(players: int, rounds: int, seed: int) -> Permutations:
    """Draws orders.

    Args:
        players: at least 2.
        rounds: orders.
        seed: of them.
    """
    generator = np.random.default_rng(seed)
    orders = np.stack([generator.permutation(players) for _ in range(rounds)])
    masks = [np.zeros((1, players), bool), np.ones((1, players), bool)]
    place = np.argsort(orders, axis=1)
    for row in place:
        masks.append(row < np.arange(1, players)[:, None])
        masks.append(row >= np.arange(1, players)[:, None])
    return Permutations(orders, np.concatenate(masks))
