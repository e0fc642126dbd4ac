"""Shapley values by regression: exact where they must be, and nearer than the mean over orders elsewhere."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from explain import shapley, shapley_regression

NUMBERS = st.floats(-10, 10, allow_nan=False, width=32)


def index(masks: Any) -> Any:
    """The rows of `shapley.all_coalitions`."""
    return masks @ (1 << np.arange(masks.shape[1]))


def estimated(masks: Any, values: Any, side: int) -> Any:
    return shapley_regression.estimate([masks], [values], shapley_regression.grid_triples(side))


@given(st.integers(2, 4), st.integers(1, 5), st.integers(0, 1000), st.data())
@settings(max_examples=60, deadline=None)
def test_values_are_exact_for_a_linear_model_and_add_up_for_any(side: int, rounds: int, seed: int, data: Any) -> None:
    k = side**2
    masks = shapley_regression.draw_coalitions(k, rounds, seed)
    assert masks.shape == (2 + 2 * rounds * (k - 1), k)
    weights = data.draw(arrays.arrays(np.float64, k, elements=NUMBERS))
    assert estimated(masks, masks @ weights, side) == pytest.approx(weights, abs=1e-8)
    values = np.random.default_rng(seed).normal(size=len(masks))
    assert estimated(masks, values, side).sum() == pytest.approx(values[1] - values[0], abs=1e-8)


@given(arrays.arrays(np.float64, 2**4, elements=NUMBERS))
@settings(deadline=None)
def test_values_are_exact_where_all_coalitions_of_a_size_occur_equally_often(values: Any) -> None:
    members = [np.array([rows for rows in shapley.all_coalitions(4) if rows.sum() == size]) for size in (1, 2, 3)]
    rounds = [np.stack([rows[turn % len(rows)] for rows in members]) for turn in range(12)]
    masks = np.concatenate([np.zeros((1, 4), bool), np.ones((1, 4), bool), *(m for r in rounds for m in (r, ~r))])
    assert estimated(masks, values[index(masks)], 2) == pytest.approx(shapley.exact_values(values), abs=1e-6)


def test_values_converge() -> None:
    values = np.random.default_rng(0).normal(size=2**9)
    masks = shapley_regression.draw_coalitions(9, 120, 0)
    assert estimated(masks, values[index(masks)], 3) == pytest.approx(shapley.exact_values(values), abs=0.05)


def test_one_round_is_one_order_and_its_reverse() -> None:
    masks = shapley_regression.draw_coalitions(9, 1, 4)
    values = np.random.default_rng(1).normal(size=len(masks))
    order = np.argsort(-masks[2:10].sum(axis=0), kind="stable")
    plan = shapley.Permutations(order[None], masks)
    assert estimated(masks, values, 3) == pytest.approx(plan.shapley(values), abs=1e-8)


def local_game(seed: int) -> Any:
    """The values of all coalitions of 3 x 3 cells: detectors that saturate, each of some neighbouring cells."""
    generator = np.random.default_rng(seed)
    cells = np.stack(np.divmod(np.arange(9), 3), axis=1)
    near = np.exp(-((cells[:, None] - cells) ** 2).sum(axis=2) / 2)[generator.integers(0, 9, 6)]
    return np.tanh(shapley.all_coalitions(9) @ (3 * near * generator.normal(size=(6, 9))).T - 1).sum(axis=1)


def random_game(seed: int) -> Any:
    return np.random.default_rng(seed).normal(size=2**9)


@pytest.mark.parametrize(
    ("game", "rounds", "gain"), [(local_game, 4, 2.0), (local_game, 2, 1.3), (random_game, 4, 1.2)]
)
def test_errors_are_smaller_than_those_of_as_many_coalitions_along_orders(game: Any, rounds: int, gain: float) -> None:
    errors = []
    for seed in range(60):
        values = game(seed)
        exact, masks = shapley.exact_values(values), shapley_regression.draw_coalitions(9, rounds, seed)
        plan = shapley.draw_permutations(9, rounds, seed)
        assert len(masks) == len(plan.masks)
        ours, theirs = estimated(masks, values[index(masks)], 3), plan.shapley(values[index(plan.masks)])
        errors.append([((ours - exact) ** 2).mean(), ((theirs - exact) ** 2).mean()])
    ours, theirs = np.mean(errors, axis=0)
    assert theirs > gain * ours


def test_a_mirrored_game_has_mirrored_values() -> None:
    mirror = np.arange(9).reshape(3, 3)[:, ::-1].ravel()
    masks = shapley_regression.draw_coalitions(9, 3, 2)
    values = local_game(0)[index(masks)]
    assert estimated(masks[:, mirror], values, 3) == pytest.approx(estimated(masks, values, 3)[mirror], abs=1e-9)


def test_coalitions_are_seeded_and_each_has_its_complement() -> None:
    one, two = (shapley_regression.draw_coalitions(16, 3, 7) for _ in range(2))
    assert (one == two).all()
    assert (one != shapley_regression.draw_coalitions(16, 3, 8)).any()
    sides = one[2:].reshape(3, 2, 15, 16)
    assert (sides[:, 0] == ~sides[:, 1]).all()
    assert (sides[:, 0].sum(axis=2) == np.arange(1, 16)).all()
    members, complements = shapley.by_size(one.sum(axis=1), 16)
    assert (members == np.arange(17)).all()
    assert (complements == np.arange(16, -1, -1)).all()


def test_players_of_a_block_occur_together_equally_often() -> None:
    def unevenness(members: Any) -> float:
        sizes, signs = members.sum(axis=1), 2.0 * members - 1
        together = signs.T @ (signs / (sizes * (49 - sizes))[:, None])
        return float(together[~np.eye(49, dtype=bool)].std())

    ranks = np.argsort(np.random.default_rng(0).random((48, 49)), axis=1)
    block = shapley_regression._balanced_block(49)
    assert (block.sum(axis=1) == np.arange(1, 49)).all()
    assert unevenness(block) < unevenness(ranks < np.arange(1, 49)[:, None]) / 2


def test_many_coalitions_are_fitted_in_parts() -> None:
    masks = shapley_regression.draw_coalitions(4, 700, 0)  # 2100 pairs
    values = np.random.default_rng(3).normal(size=2**4)
    assert estimated(masks, values[index(masks)], 2) == pytest.approx(shapley.exact_values(values), abs=0.03)
    assert estimated(masks, masks @ np.arange(4.0), 2) == pytest.approx(np.arange(4.0), abs=1e-8)


def test_a_constant_has_no_values_and_what_is_not_finite_stays_so() -> None:
    masks = shapley_regression.draw_coalitions(9, 2, 0)
    assert estimated(masks, np.full(len(masks), 3.0), 3) == pytest.approx(np.zeros(9), abs=1e-12)
    values = np.ones(len(masks))
    values[5] = np.nan
    assert np.isnan(estimated(masks, values, 3)).all()
