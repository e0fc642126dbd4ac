"""Looks at growing parts of a sample: how often they err, and when there are none."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.test_explain_parts import BLOCKING, MEASURED, OPTIONS, judged, table

from explain import image_explainer, judgement, looks, sample
from explain.options import Bound

TASK = "image_classification"
ALONE = replace(OPTIONS, measures={"pointing": Bound(True, 0.0)}, min_correct=1)
RUNS = 400


def passes(made: dict[str, Any], plan: list[looks.Look]) -> bool:
    """Whether a model passes at one of the looks."""
    for look in plan[:-1]:
        part = {name: column[: look.examples] for name, column in made.items()}
        if looks.is_certain(TASK, part, ALONE, image_explainer, look):
            return True
    return judgement.judge_sample(TASK, made, ALONE, image_explainer, plan[-1].alpha).accepted


def error_rate(plan: list[looks.Look], cluster_size: int = 1) -> float:
    """Share of models at the bound that pass. A mean that is far from significant at each look need not be bootstrapped."""
    generator, count = np.random.default_rng(5), plan[-1].examples
    accepted = 0
    for _ in range(RUNS):
        values = np.repeat(20 * generator.normal(size=count // cluster_size), cluster_size)
        z = [np.sqrt(n / cluster_size) * values[:n].mean() / values[:n].std() for n in (x.examples for x in plan)]
        if max(z) > 1.5:
            accepted += passes(table(count, pointing=values, cluster=np.arange(count) // cluster_size), plan)
    return accepted / RUNS


@pytest.mark.parametrize("cluster_size", [1, 2])
def test_a_model_at_the_bound_passes_as_often_as_alpha_says_over_all_looks(cluster_size: int) -> None:
    plan = looks.plan_looks(60, 20, ALONE)
    assert [look.examples for look in plan] == [20, 40, 60]
    assert 0.02 <= error_rate(plan, cluster_size) <= 0.075


def test_a_few_examples_that_agree_by_chance_do_not_pass() -> None:
    """One example in twenty is strongly against the model: in a third of the looks none is among 20."""
    generator = np.random.default_rng(6)
    look = looks.plan_looks(60, 20, ALONE)[0]
    drawn = [np.where(generator.random(20) < 0.05, -0.95, 0.05) + 0.01 * generator.normal(size=20) for _ in range(60)]
    parts = [table(20, pointing=values) for values in drawn]
    bootstrapped = [judgement.judge_sample(TASK, part, ALONE, image_explainer, look.alpha).accepted for part in parts]
    assert sum(bootstrapped) >= 12
    assert not any(looks.is_certain(TASK, part, ALONE, image_explainer, look) for part in parts)


NOISE = np.random.default_rng(1).normal(size=60)
CASES = {
    "all is well": ({}, True),
    "one that blocks is chance": ({"learned": NOISE - NOISE.mean()}, False),
    "one that does not block is chance": ({"mass": NOISE - NOISE.mean()}, True),
    "one that blocks is unmeasured": ({"pointing": np.full(60, np.nan)}, False),
    "values do not add up": ({"additivity": np.append(np.zeros(59), 0.1)}, False),
    "seeds do not agree": ({"stability": np.full(60, 0.5)}, False),
    "some are infinite": ({"finite": np.append(np.ones(59), 0)}, False),
    "few are right": ({"correct": np.append(np.zeros(50), np.ones(10))}, False),
    "documents have names": ({"cluster": np.array(["a", "b", "c"] * 20)}, True),
}


@pytest.mark.parametrize("case", CASES)
def test_when_a_look_is_enough(case: str) -> None:
    changes, certain = CASES[case]
    assert looks.is_certain(TASK, table(**changes), OPTIONS, image_explainer, looks.Look(60, 0.001)) == certain


def test_a_weak_model_needs_the_last_look() -> None:
    weak = table(pointing=0.1 + NOISE - NOISE.mean() + 0.2)  # p is about 0.01
    assert not looks.is_certain(TASK, weak, OPTIONS, image_explainer, looks.Look(60, 0.001))
    assert judged(weak, {"pointing": Bound(True, 0.0)}).status == "passed"


def test_looks_spend_alpha_and_no_more() -> None:
    plan = looks.plan_looks(256, 32, OPTIONS)
    assert [look.examples for look in plan] == [96, 160, 256]
    assert [look.alpha for look in plan] == pytest.approx([0.001, 0.001, 0.048])
    whole = [looks.Look(256, 0.05)]
    assert looks.plan_looks(256, 32, replace(OPTIONS, looks=1)) == whole
    assert looks.plan_looks(256, 32, replace(OPTIONS, slice_gap=0.2)) == whole
    assert looks.plan_looks(30, 32, OPTIONS) == [looks.Look(30, 0.05)]
    for alpha, count in ((0.014, 1), (0.016, 3)):  # three measures that block, and p-values of 1e-4 and more
        plan = looks.plan_looks(256, 32, replace(OPTIONS, alpha=alpha))
        assert len(plan) == count
        assert sum(look.alpha for look in plan) == pytest.approx(alpha)


def test_measures_that_only_warn_keep_their_level() -> None:
    generator = np.random.default_rng(4)
    weak = generator.normal(size=60)
    weak += 1.9 / np.sqrt(60) - weak.mean()  # about p = 0.03
    changed = table(mass=weak, pointing=weak)
    verdict = judgement.judge_sample(TASK, changed, OPTIONS, image_explainer, 0.001)
    outcomes = {measure.name: measure.outcome for measure in verdict.measures}
    assert (outcomes["mass"], outcomes["pointing"]) == ("passed", "failed")
    assert set(outcomes) == set(MEASURED) > set(BLOCKING)


def test_the_first_of_a_sample_are_the_smaller_sample() -> None:
    ids, strata = [str(number) for number in range(300)], [number % 7 for number in range(300)]
    order = sample.rank_positions(ids, strata, 60, 0)
    for count in (20, 40, 60):
        assert sorted(order[:count]) == sample.choose_positions(ids, strata, count, 0)
    assert order != sorted(order)
