"""From the measures of a sample to a verdict: intervals, invariants, bounds."""

from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from explain.options import Bound, Options
from explain.tables import Table
from runs.statistics import MeanEstimate, bootstrap_mean, holm_correction

ADDITIVITY = 1e-4  # largest difference of what values add up to, relative to what they should (or to 1)
FEW = 10  # clusters below which whole ones are not drawn: a bootstrap over so few means nothing


@dataclass(frozen=True)
class MeasureResult:
    """One measure over the sample.

    Attributes:
        name: one of the task's MEASURES.
        block: whether it can fail the model.
        bound: that the mean must be above.
        mean: over the examples that are judged.
        adjusted: p-value, corrected over the blocking measures; None for others.
        outcome: passed, failed (blocking), warned, or unmeasured.
        wrong: its mean over wrong answers; None if those are judged too.
    """

    name: str
    block: bool
    bound: float
    mean: MeanEstimate
    adjusted: float | None
    outcome: str
    wrong: MeanEstimate | None


@dataclass(frozen=True)
class Verdict:
    """What the gate decides by.

    Attributes:
        status: passed, warned, failed or inconclusive.
        task: of the model.
        why: sentences on what failed, or could not be judged.
        judged: which examples, in words.
        examples: in the sample.
        accuracy: share of them that is right.
        measures: all of them.
        invariants: additivity, stability, finite.
        about: model, sample, settings, versions.
        slices: of `explain.slices`.
        calibration: of `explain.slices`.
    """

    status: str
    task: str
    why: list[str]
    judged: str
    examples: int
    accuracy: float
    measures: list[MeasureResult]
    invariants: dict[str, float]
    about: dict[str, Any] = field(default_factory=dict)
    slices: list[dict[str, Any]] = field(default_factory=list)
    calibration: dict[str, Any] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether the model may be used."""
        return self.status in ("passed", "warned")


def judge_sample(task: str, table: Table, options: Options, explainer: ModuleType) -> Verdict:
    """Judges a sample.

    Right answers are judged: what a model looks at when it is wrong is reported apart. With too few of them nothing is.
    Measures that block must all be above their bounds, their p-values corrected together (Holm 1979).

    Args:
        task: name of the model's task.
        table: of the explainer.
        options: conf/explain, with the bounds.
        explainer: of the task: what its measures mean.
    """
    correct = table["correct"] > 0.5
    alone = int(correct.sum()) >= options.minimum
    chosen = correct if alone else np.ones(len(correct), bool)
    _, sizes = np.unique(table["cluster"], return_counts=True)
    clusters = table["cluster"] if len(sizes) >= FEW else np.arange(len(correct))
    bounds = options.measures
    means = {
        name: bootstrap_mean(table[name][chosen], clusters[chosen], bound=bound.bound, seed=options.seed)
        for name, bound in bounds.items()
    }
    wrong = {name: bootstrap_mean(table[name][~chosen], clusters[~chosen]) if alone else None for name in bounds}
    blocking = {name: means[name].p for name, bound in bounds.items() if bound.block and means[name].examples}
    adjusted = holm_correction(blocking)
    measured = [
        _measured(name, bound, means[name], adjusted.get(name), options.level, wrong[name])
        for name, bound in bounds.items()
    ]
    invariants = {
        "additivity": float(table["additivity"].max()),
        "stability": float(table["stability"].mean()),
        "finite": float(table["finite"].mean()),
    }
    doubts = []
    if not invariants["additivity"] <= ADDITIVITY:
        doubts.append(
            f"values do not add up to the prediction (off by {invariants['additivity']:.2g}): nothing is judged"
        )
    if invariants["finite"] < 1:
        doubts.append(f"{1 - invariants['finite']:.0%} of the explanations have values that are no numbers")
    if invariants["stability"] < options.stable:
        doubts.append(
            f"two explainer seeds agree by {invariants['stability']:.2f} only (explain.stable={options.stable:g}): "
            f"raise explain.{task}.{explainer.STEADIER}"
        )
    if not alone:
        doubts.append(
            f"{int(correct.sum())} of {len(correct)} answers are right, too few to say what the model looks at when it is "
            f"(explain.minimum={options.minimum})"
        )
    if not blocking:
        doubts.append("no blocking measure could be measured")
    failed = [_why(measure, explainer.MEASURES) for measure in measured if measure.outcome == "failed"]
    status = "inconclusive" if doubts else "failed" if failed else "passed"
    if status == "passed" and any(measure.outcome in ("warned", "unmeasured") for measure in measured):
        status = "warned"
    group = f"the {int(correct.sum())} right answers" if alone else "all of them, for want of right ones"
    return Verdict(status, task, doubts + failed, group, len(correct), float(correct.mean()), measured, invariants)


def _measured(
    name: str, bound: Bound, result: MeanEstimate, adjusted: float | None, level: float, wrong: MeanEstimate | None
) -> MeasureResult:
    if not result.examples:
        outcome = "unmeasured"
    else:
        above = (result.p if adjusted is None else adjusted) <= level
        outcome = "passed" if above else "failed" if bound.block else "warned"
    return MeasureResult(name, bound.block, bound.bound, result, adjusted, outcome, wrong)


def _why(measure: MeasureResult, meanings: dict[str, str]) -> str:
    mean_ = measure.mean
    return (
        f"{measure.name} is {mean_.value:.3f} [{mean_.low:.3f}, {mean_.high:.3f}], not certainly above "
        f"{measure.bound:g} ({meanings[measure.name]})"
    )
