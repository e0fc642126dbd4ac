"""Looks at growing parts of the sample: the explanations end at the first where the model passes beyond doubt."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from explain import judgement
from explain.options import Options
from explain.tables import Table
from runs.statistics import DRAWS

INTERIM_SHARE = 0.02  # of alpha, for each look before the last: 0.001 of 0.05, the usual level of interim analyses


@dataclass(frozen=True)
class Look:
    """A look at the first examples of the sample.

    Attributes:
        examples: number of examples that are explained by then.
        alpha: significance level of the blocking measures together.
    """

    examples: int
    alpha: float


def plan_looks(count: int, chunk: int, options: Options) -> list[Look]:
    """Return the looks at a sample; the last is at the whole sample.

    The levels are those of Haybittle (1971) and Peto et al. (1976): a small one for each interim look, and the rest of alpha
    for the last. They add up to alpha, so by Bonferroni's inequality the error rate over all looks stays below alpha, however
    the looks depend on each other.

    There is no interim look where it could not end the explanations, so that it costs no power: with `slice_gap`, whose test
    needs the whole sample, or with a level that the p-values of the bootstrap cannot reach.

    Args:
        count: size of the sample.
        chunk: number of examples that are explained together; interim looks are after whole chunks.
        options: conf/explain.
    """
    level = INTERIM_SHARE * options.alpha
    blocking = sum(bound.block for bound in options.measures.values())
    sizes: set[int] = set()
    if options.slice_gap is None and blocking / (DRAWS + 1) <= level:  # Holm's factor times the smallest p-value
        sizes = {round(count * number / options.looks / chunk) * chunk for number in range(1, options.looks)}
    interim = [Look(size, level) for size in sorted(sizes) if 0 < size < count]
    return [*interim, Look(count, options.alpha - len(interim) * level)]


def is_certain(task: str, table: Table, options: Options, explainer: ModuleType, look: Look) -> bool:
    """Return whether the model passes at an interim look, with all blocking measures, whatever a single example may say.

    The bootstrap knows no values that are not in the sample, so a few examples that agree by chance would pass. The model must
    pass with one further example as well, 1 below each bound: nonparametric tests of bounded means add the smallest possible
    value in this way (Learned-Miller and Thomas 2019, arXiv 1905.06208). A blocking measure without values fails with it.

    Args:
        task: name of the model's task.
        table: of the explainer, for the examples of the look.
        options: conf/explain.
        explainer: explainer module of the task.
        look: before the last.
    """
    return all(
        judgement.judge_sample(task, rows, options, explainer, look.alpha).accepted
        for rows in (table, _add_adverse_example(table, options))
    )


def _add_adverse_example(table: Table, options: Options) -> Table:
    _, clusters = np.unique(table["cluster"], return_inverse=True)
    values = {name: bound.bound - 1 for name, bound in options.measures.items()}
    values |= {"correct": 1.0, "cluster": len(clusters), "stability": 1.0, "additivity": 0.0, "finite": 1.0}
    columns = {**table, "cluster": clusters}
    return {name: np.append(columns[name], value) for name, value in values.items()}


def describe_stop(plan: Sequence[Look], look: Look) -> dict[str, Any]:
    """Return `stop` of verdict.json: number of examples, size of the sample, look, number of looks, alpha, reason.

    Args:
        plan: all looks.
        look: the one at which the explanations ended.
    """
    early = look.examples < plan[-1].examples
    return {
        "examples": look.examples,
        "sample": plan[-1].examples,
        "look": plan.index(look) + 1,
        "looks": len(plan),
        "alpha": look.alpha,
        "reason": "every blocking measure is significant" if early else "the whole sample is explained",
    }
