"""Shapley values, measures and intervals: against closed forms, shap, Quantus, scipy and other ways to compute them."""

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats
from sklearn.metrics import auc

from explain import measures, sample, shapley
from runs import calibration, statistics

NUMBERS = st.floats(-10, 10, allow_nan=False, width=32)


def all_values(players: int) -> Any:
    return arrays.arrays(np.float64, 2**players, elements=NUMBERS)


def by_definition(values: Any, players: int) -> Any:
    """The mean gain over all orders."""
    found = np.zeros(players)
    orders = list(permutations(range(players)))
    for order in orders:
        there = 0
        for player in order:
            found[player] += values[there | 1 << player] - values[there]
            there |= 1 << player
    return found / len(orders)


@given(all_values(4))
def test_exact_values_are_the_mean_over_all_orders(values: Any) -> None:
    assert shapley.exact_values(values) == pytest.approx(by_definition(values, 4), abs=1e-9)


@given(all_values(5))
def test_exact_values_add_up(values: Any) -> None:
    assert shapley.exact_values(values).sum() == pytest.approx(values[-1] - values[0], abs=1e-9)


@given(st.integers(2, 9), st.integers(1, 4), st.integers(0, 1000), st.data())
def test_permutations_are_exact_for_a_linear_model_and_add_up_for_any(
    k: int, rounds: int, seed: int, data: Any
) -> None:
    plan = shapley.draw_permutations(k, rounds, seed)
    assert len(plan.masks) == 2 + 2 * rounds * (k - 1)
    weights = data.draw(arrays.arrays(np.float64, k, elements=NUMBERS))
    assert plan.shapley(plan.masks @ weights) == pytest.approx(weights, abs=1e-9)
    values = data.draw(arrays.arrays(np.float64, len(plan.masks), elements=NUMBERS))
    assert plan.shapley(values).sum() == pytest.approx(values[1] - values[0], abs=1e-9)


def test_permutations_near_the_exact_values() -> None:
    values = np.random.default_rng(0).normal(size=2**6)
    plan = shapley.draw_permutations(6, 4000, 1)
    found = plan.shapley(values[plan.masks @ (1 << np.arange(6))])
    assert found == pytest.approx(shapley.exact_values(values), abs=0.05)


def test_shaps_own_explainers_say_the_same() -> None:
    import shap

    generator = np.random.default_rng(3)
    values = generator.normal(size=2**5)

    def model(rows: Any) -> Any:
        return values[rows.astype(int) @ (1 << np.arange(5))]

    background, everybody = np.zeros((1, 5)), np.ones((1, 5))
    exact = shap.explainers.Exact(model, shap.maskers.Independent(background))(everybody)
    assert exact.values[0] == pytest.approx(shapley.exact_values(values), abs=1e-9)
    sampled = shap.explainers.Permutation(model, shap.maskers.Independent(background), seed=0)
    # Five players in 120 orders: both are sampled, and near each other.
    theirs = sampled(everybody, max_evals=20_000).values[0]
    plan = shapley.draw_permutations(5, 2000, 0)
    assert plan.shapley(model(plan.masks)) == pytest.approx(theirs, abs=0.05)


def test_the_same_seed_gives_the_same_orders() -> None:
    one, two = (shapley.draw_permutations(8, 3, 7).masks for _ in range(2))
    assert (one == two).all()
    assert (one != shapley.draw_permutations(8, 3, 8).masks).any()


def test_by_size_is_what_random_orders_give() -> None:
    values = np.random.default_rng(0).normal(size=2**5)
    plan = shapley.draw_permutations(5, 20_000, 0)
    there, _ = shapley.by_size(values[plan.masks @ (1 << np.arange(5))], 5)
    assert shapley.mean_by_size(values) == pytest.approx(there.mean(axis=0), abs=0.05)


@given(arrays.arrays(np.float64, 9, elements=st.floats(0, 1)))
def test_areas_are_trapezoids(curve: Any) -> None:
    at = np.array([0, 1, 3, 6, 8, 16, 32, 50, 64])
    assert measures.curve_area(curve, at) == pytest.approx(auc(at / 64, curve), abs=1e-12)


def test_comprehensiveness_and_sufficiency_by_hand() -> None:
    at = np.arange(21)  # of 20 cells: 1 %, 5 %, 10 %, 20 %, 50 % are 1, 1, 2, 4, 10
    deletion, insertion = np.linspace(1, 0, 21) ** 2, np.linspace(0, 1, 21)
    lost = [1 - deletion[count] for count in (1, 1, 2, 4, 10)]
    assert measures.comprehensiveness(deletion, at) == pytest.approx(np.mean(lost))
    assert measures.sufficiency(deletion, insertion, at) == pytest.approx(
        1 - np.mean([insertion[n] for n in (1, 1, 2, 4, 10)])
    )


def test_quantus_measures_localisation_the_same() -> None:
    import quantus

    generator = np.random.default_rng(0)
    values = generator.normal(size=(8, 1, 16, 16))
    masks = np.zeros((8, 1, 16, 16), np.int64)  # as a bool its pointing game fails
    for number in range(8):
        masks[number, 0, 2 : 6 + number, 3:12] = 1
    given_ = {"model": None, "x_batch": values, "y_batch": np.zeros(8, int), "a_batch": values, "s_batch": masks}
    quiet = {"disable_warnings": True, "normalise": False, "abs": False}
    theirs = quantus.PointingGame(**quiet)(**given_)
    flat = values.reshape(8, -1), masks.reshape(8, -1)
    assert measures.pointing_game(*flat).tolist() == [float(each) for each in theirs]
    theirs = quantus.RelevanceMassAccuracy(**quiet)(**{**given_, "a_batch": np.maximum(values, 0)})
    assert measures.relevance_mass(*flat) == pytest.approx(np.array(theirs, float))


def test_pointing_shares_a_point_among_ties_and_knows_half_cells() -> None:
    assert measures.pointing_game([1, 1, 0], [1, 0, 0]) == 0.5
    assert measures.pointing_game([3, 1, 0], [0.25, 0, 1]) == 0.25
    assert np.isnan(measures.relevance_mass([-1, -1], [1, 0]))


@given(arrays.arrays(np.float64, (2, 12), elements=st.integers(-5, 5).map(float)))
def test_rank_correlation_is_scipys(both: Any) -> None:
    found = float(measures.rank_correlation(*both))
    if np.ptp(both[0]) == 0 or np.ptp(both[1]) == 0:
        assert found == 0
    else:
        assert found == pytest.approx(stats.spearmanr(*both).statistic, abs=1e-12)


def test_reliability_is_of_the_mean() -> None:
    generator = np.random.default_rng(0)
    truth = generator.normal(size=(4000, 30))
    parts = truth + generator.normal(size=(4, 4000, 30))
    predicted = measures.reliability(parts[0], parts[1]).mean()
    assert predicted == pytest.approx(
        measures.rank_correlation(parts[:2].mean(axis=0), parts[2:].mean(axis=0)).mean(), abs=0.02
    )


def test_calibration_error() -> None:
    assert calibration.expected_calibration_error(calibration.reliability_bins([0.5] * 10, [1, 0] * 5, 1)) == 0
    # Equal confidences are one bin's worth, in whatever order the rows come.
    assert calibration.expected_calibration_error(
        calibration.reliability_bins([0.1] * 100, [1] * 10 + [0] * 90)
    ) == pytest.approx(0, abs=1e-12)
    assert calibration.expected_calibration_error(calibration.reliability_bins([0.9] * 10, [0] * 10)) == pytest.approx(
        0.9
    )
    generator = np.random.default_rng(0)
    sure = generator.uniform(size=50_000)
    assert (
        calibration.expected_calibration_error(
            calibration.reliability_bins(sure, generator.uniform(size=50_000) < sure)
        )
        < 0.02
    )


# --- intervals


def test_intervals_hold_the_mean_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    inside = 0
    for turn in range(300):
        found = statistics.bootstrap_mean(generator.exponential(size=80), seed=turn, draws=500)
        inside += found.low <= 1 <= found.high
    assert 0.90 <= inside / 300 <= 0.98


def test_clusters_widen_an_interval() -> None:
    generator = np.random.default_rng(0)
    of = np.repeat(np.arange(20), 10)
    values = generator.normal(size=20)[of] + 0.1 * generator.normal(size=200)
    alone, together = statistics.bootstrap_mean(values), statistics.bootstrap_mean(values, of)
    assert (together.high - together.low) > 2 * (alone.high - alone.low)
    assert (together.examples, together.clusters) == (200, 20)


def test_a_mean_at_its_bound_passes_as_often_as_the_level_says() -> None:
    generator = np.random.default_rng(0)
    passed = sum(
        statistics.bootstrap_mean(generator.normal(size=60), seed=turn, draws=500).p <= 0.05 for turn in range(400)
    )
    assert 0.02 <= passed / 400 <= 0.09


def test_what_was_not_measured_is_left_out() -> None:
    found = statistics.bootstrap_mean([1.0, np.nan, 3.0])
    assert (found.value, found.examples) == (2.0, 2)
    nothing = statistics.bootstrap_mean([np.nan])
    assert (nothing.examples, nothing.p) == (0, 1.0)
    assert statistics.bootstrap_mean([5.0]).p == 1.0  # one example says nothing


# --- the sample


@given(
    st.lists(st.tuples(st.text(max_size=5), st.integers(0, 3)), unique_by=lambda each: each[0], max_size=40),
    st.randoms(),
)
@settings(max_examples=50)
def test_a_sample_depends_on_no_order(rows: list[tuple[str, int]], random: Any) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    chosen = [
        {given_[at][0] for at in sample.choose_positions([a for a, _ in given_], [b for _, b in given_], 12, 0)}
        for given_ in (rows, shuffled)
    ]
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == min(12, len(rows))


def test_a_sample_is_spread_over_strata() -> None:
    ids, strata = [str(n) for n in range(1000)], [0] * 900 + list(range(1, 101))
    chosen = sample.choose_positions(ids, strata, 101, 5)
    assert len({strata[at] for at in chosen}) == 101
    assert chosen == sorted(chosen)
    assert sample.choose_positions(ids, strata, 101, 6) != chosen
