"""The verdict on a sample of explanations: intervals, invariants, bounds."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from explain.options import Bound, Options
from explain.tables import Table
from runs.statistics import MeanEstimate, bootstrap_mean, holm_correction

MAX_ADDITIVITY_ERROR = 1e-4  # of the sum of values, relative to what it should be (or to 1)
MIN_CLUSTERS = 10  # with fewer, the bootstrap draws examples instead of clusters


@dataclass(frozen=True)
class MeasureResult:
    """One measure over the sample.

    Attributes:
        name: one of the task's MEASURES.
        block: whether it can fail the model.
        bound: value that the mean must exceed.
        mean: over the judged examples.
        adjusted: p-value, corrected over the blocking measures; None for others.
        outcome: passed, failed (blocking), warned, or unmeasured.
        mean_of_errors: mean over incorrect predictions; None if those are judged too; `wrong` in the file.
    """

    name: str
    block: bool
    bound: float
    mean: MeanEstimate
    adjusted: float | None
    outcome: str
    mean_of_errors: MeanEstimate | None


@dataclass(frozen=True)
class Verdict:
    """The verdict of the gate.

    Attributes:
        status: passed, warned, failed or inconclusive.
        task: of the model.
        reasons: sentences on what failed, or could not be judged; `why` in the file.
        judged: description of the judged examples.
        examples: number of explained examples.
        accuracy: share of correct predictions.
        measures: all measures.
        invariants: additivity, stability, finite.
        provenance: model, data, sample, settings, versions, time; `about` in the file.
        slices: of `explain.slices`.
        calibration: of `explain.slices`.
        stop: of `explain.looks`: how many examples of the sample were explained, and why no more.
    """

    status: str
    task: str
    reasons: list[str]
    judged: str
    examples: int
    accuracy: float
    measures: list[MeasureResult]
    invariants: dict[str, float]
    provenance: dict[str, Any] = field(default_factory=dict)
    slices: list[dict[str, Any]] = field(default_factory=list)
    calibration: dict[str, Any] = field(default_factory=dict)
    stop: dict[str, Any] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        """Whether the model may be used."""
        return self.status in ("passed", "warned")


def verdict_fields(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as the fields of verdict.json."""
    keys = {"reasons": "why", "provenance": "about", "mean_of_errors": "wrong"}

    def rename(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        return {keys.get(name, name): value for name, value in items}

    return asdict(verdict, dict_factory=rename)


def judge_sample(
    task: str, table: Table, options: Options, explainer: ModuleType, alpha: float | None = None
) -> Verdict:
    """Judge a sample.

    Correct predictions are judged, and incorrect ones are reported separately. With too few correct predictions the verdict
    is inconclusive. The means of all blocking measures must exceed their bounds, with p-values corrected for their number
    (Holm 1979).

    Args:
        task: name of the model's task.
        table: of the explainer.
        options: conf/explain, with the bounds.
        explainer: explainer module of the task.
        alpha: significance level of the blocking measures, if it is another than that of the options.
    """
    level = options.alpha if alpha is None else alpha
    correct = table["correct"] > 0.5
    correct_count, count = int(correct.sum()), len(correct)
    enough = correct_count >= options.min_correct
    judged = correct if enough else np.ones(count, bool)
    _, sizes = np.unique(table["cluster"], return_counts=True)
    clusters = table["cluster"] if len(sizes) >= MIN_CLUSTERS else np.arange(count)
    bounds = options.measures
    means = {
        name: bootstrap_mean(table[name][judged], clusters[judged], bound=bound.bound, seed=options.seed)
        for name, bound in bounds.items()
    }
    errors = {name: bootstrap_mean(table[name][~judged], clusters[~judged]) if enough else None for name in bounds}
    adjusted = holm_correction(
        {name: means[name].p for name, bound in bounds.items() if bound.block and means[name].examples}
    )
    results = [
        MeasureResult(
            name,
            bound.block,
            bound.bound,
            means[name],
            adjusted.get(name),
            _measure_outcome(bound, means[name], adjusted.get(name), level if bound.block else options.alpha),
            errors[name],
        )
        for name, bound in bounds.items()
    ]
    invariants = {
        "additivity": float(table["additivity"].max()),
        "stability": float(table["stability"].mean()),
        "finite": float(table["finite"].mean()),
    }
    doubts = []
    if not invariants["additivity"] <= MAX_ADDITIVITY_ERROR:
        doubts.append(f"the values do not add up to the prediction (off by {invariants['additivity']:.2g})")
    if invariants["finite"] < 1:
        doubts.append(f"{1 - invariants['finite']:.0%} of the explanations have values that are not finite")
    if invariants["stability"] < options.min_agreement:
        doubts.append(
            f"two explainer seeds agree by only {invariants['stability']:.2f} "
            f"(explain.min_agreement={options.min_agreement:g}): raise explain.{task}.{explainer.STABILITY_SETTING}"
        )
    if not enough:
        doubts.append(
            f"{correct_count} of {count} predictions are correct, too few to judge (explain.min_correct={options.min_correct})"
        )
    if not adjusted:
        doubts.append("no blocking measure could be measured")
    failures = [_describe_failure(result, explainer.MEASURES) for result in results if result.outcome == "failed"]
    status = "inconclusive" if doubts else "failed" if failures else "passed"
    if status == "passed" and any(result.outcome in ("warned", "unmeasured") for result in results):
        status = "warned"
    group = f"the {correct_count} correct predictions" if enough else "all predictions, because too few are correct"
    return Verdict(status, task, doubts + failures, group, count, float(correct.mean()), results, invariants)


def _measure_outcome(bound: Bound, mean: MeanEstimate, adjusted: float | None, alpha: float) -> str:
    if not mean.examples:
        return "unmeasured"
    if (mean.p if adjusted is None else adjusted) <= alpha:
        return "passed"
    return "failed" if bound.block else "warned"


def _describe_failure(result: MeasureResult, meanings: Mapping[str, str]) -> str:
    mean = result.mean
    return (
        f"{result.name} is {mean.value:.3f} [{mean.low:.3f}, {mean.high:.3f}], not significantly above "
        f"{result.bound:g} ({meanings[result.name]})"
    )
