"""From explained examples to a verdict: measures against their nulls, invariants, intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from explain import measures, shapley
from runs.statistics import Mean, holm, mean

ADDITIVITY = 1e-4  # largest difference of what values add up to, relative to what they should (or to 1)
WIDE = 0.8  # share of the image from which on a box says nothing
FEW = 10  # clusters below which whole ones are not drawn: a bootstrap over so few means nothing
SAID = {
    "question_share": "the question's share of all that is said, less its share at random weights",
    "question_permutation": "how far the answer's probability falls when another question is asked",
    "comprehensiveness": "how far the probability falls without the highest parts, less the fall in a random order",
    "sufficiency": "how much of the probability the highest parts alone keep, more than in a random order",
    "unlike_random": "one less the likeness to values of the same architecture at random weights",
    "agreement": "rank correlation with integrated gradients",
    "pointing": "how often the highest cell lies in the object's box, less the box's share of the image",
    "mass": "the share of positive values in the object's box, less the box's share of the image",
    "faithfulness": "the areas of insertion and deletion, against those of a random order",
    "learned": "faithfulness, less that of the same architecture at random weights",
}

Table = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Measured:
    """One measure over the sample.

    Attributes:
        name: one of `SAID`.
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
    mean: Mean
    adjusted: float | None
    outcome: str
    wrong: Mean | None


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
    measures: list[Measured]
    invariants: dict[str, float]
    about: dict[str, Any] = field(default_factory=dict)
    slices: list[dict[str, Any]] = field(default_factory=list)
    calibration: dict[str, Any] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether the model may be used."""
        return self.status in ("passed", "warned")


def of_images(explained: Sequence[Mapping[str, Any]]) -> Table:
    """Per image: `correct`, `confidence`, `cluster` (its class), `stability`, `additivity`, and each measure."""
    rows: dict[str, list[Any]] = {}
    for each in explained:
        values, inside = each["values"], each["inside"]
        share = float(np.mean(inside)) if float(each["area"]) <= WIDE else np.nan
        at, curves, random = each["counts"], each["curves"], each["random"]
        gained, null, unlike = _gain(at, curves, random), np.nan, np.nan
        if "null" in each:
            null = _gain(at, each["null_curves"], each["null_random"])
            unlike = float(measures.alike(values, each["null"]))
        row = {
            "correct": float(each["label"] == each["predicted"]),
            "confidence": float(each["confidence"]),
            "cluster": int(each["label"]),
            "stability": float(measures.reliability(*each["halves"])),
            "additivity": _additivity(values, each["ends"][0], each["ends"][1]) if each["adds_up"] else 0.0,
            "pointing": float(measures.pointing(values, inside)) - share,
            "mass": float(measures.mass(values, inside)) - share,
            "faithfulness": gained,
            "learned": gained - null,
            "comprehensiveness": float(measures.removed(curves[1], at) - measures.removed(random[1], at)),
            "sufficiency": float(measures.kept(random[1], random[0], at) - measures.kept(curves[1], curves[0], at)),
            "unlike_random": 1 - unlike,
            "agreement": float(measures.alike(values, each["gradients"])),
            "finite": float(np.isfinite(values).all()),
        }
        for name, value in row.items():
            rows.setdefault(name, []).append(value)
    return {name: np.array(column) for name, column in rows.items()}


def _gain(at: Any, curves: Any, random: Any) -> float:
    """How much more area insertion has, and how much less deletion, than in a random order."""
    ours, others = measures.area(curves, at), measures.area(random, at)
    return float(ours[0] - others[0] + others[1] - ours[1])


def of_questions(explained: Sequence[Mapping[str, Any]]) -> Table:
    """Per question: as `of_images`, the cluster its document."""
    rows: dict[str, list[Any]] = {}
    for each in explained:
        values = each["values"]
        probability = np.exp(each["coalitions"])
        insertion, deletion = paths(values, probability)
        middle, at = shapley.by_size(probability), np.arange(len(values) + 1)
        null = each.get("null", np.full(len(values), np.nan))
        row = {
            "correct": float(each["correct"]),
            "confidence": float(each["confidence"]),
            "cluster": each["cluster"],
            "stability": 1.0,  # exact: there is no seed
            "additivity": _additivity(values, each["coalitions"][0], each["coalitions"][-1]),
            "question_share": float(measures.share(values) - measures.share(null)),
            "question_permutation": float(probability[-1] - np.nanmean(np.exp(each["asked"])))
            if np.isfinite(each["asked"]).any()
            else np.nan,
            "comprehensiveness": float(measures.removed(deletion, at) - measures.removed(middle[::-1], at)),
            "sufficiency": float(measures.kept(middle[::-1], middle, at) - measures.kept(deletion, insertion, at)),
            "unlike_random": 1 - float(measures.alike(values, null)) if "null" in each else np.nan,
            "agreement": float(measures.alike(values, each["gradients"])),
            "finite": float(np.isfinite(values).all()),
        }
        for name, value in row.items():
            rows.setdefault(name, []).append(value)
    return {name: np.array(column) for name, column in rows.items()}


def paths(values: Any, coalitions: Any) -> tuple[Any, Any]:
    """The curves [k + 1] of a function of all coalitions as its highest groups are shown, and hidden, one by one.

    Args:
        values: [k] that order them.
        coalitions: [2**k] in the order of `shapley.coalitions`.
    """
    order = np.argsort(-np.asarray(values), kind="stable")
    shown = np.concatenate([[0], np.cumsum(1 << order)])
    return coalitions[shown], coalitions[len(coalitions) - 1 - shown]


def _additivity(values: Any, nothing: float, everything: float) -> float:
    gap = everything - nothing
    return float(abs(np.sum(values) - gap) / max(1.0, abs(gap)))


def judge(task: str, table: Table, settings: Mapping[str, Any]) -> Verdict:
    """Judges a sample.

    Right answers are judged: what a model looks at when it is wrong is reported apart. With too few of them nothing is.
    Measures that block must all be above their bounds, their p-values corrected together (Holm 1979).

    Args:
        task: question_answering or image_classification.
        table: of `of_images` or `of_questions`.
        settings: conf/explain, with the bounds in `measures` of the task.
    """
    correct = table["correct"] > 0.5
    alone = int(correct.sum()) >= settings["minimum"]
    chosen = correct if alone else np.ones(len(correct), bool)
    _, sizes = np.unique(table["cluster"], return_counts=True)
    clusters = table["cluster"] if len(sizes) >= FEW else np.arange(len(correct))
    asked: Mapping[str, Any] = settings[task]["measures"]
    means = {
        name: mean(table[name][chosen], clusters[chosen], bound=each["bound"], seed=settings["seed"])
        for name, each in asked.items()
    }
    wrong = {name: mean(table[name][~chosen], clusters[~chosen]) if alone else None for name in asked}
    blocking = {name: means[name].p for name, each in asked.items() if each["block"] and means[name].examples}
    adjusted = holm(blocking)
    found = [
        _measured(name, each, means[name], adjusted.get(name), settings["level"], wrong[name])
        for name, each in asked.items()
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
    if invariants["stability"] < settings["stable"]:
        doubts.append(
            f"two explainer seeds agree by {invariants['stability']:.2f} only (explain.stable={settings['stable']:g}): "
            "raise explain.image_classification.rounds"
        )
    if not alone:
        doubts.append(
            f"{int(correct.sum())} of {len(correct)} answers are right, too few to say what the model looks at when it is "
            f"(explain.minimum={settings['minimum']})"
        )
    if not blocking:
        doubts.append("no blocking measure could be measured")
    failed = [_why(each) for each in found if each.outcome == "failed"]
    status = "inconclusive" if doubts else "failed" if failed else "passed"
    if status == "passed" and any(each.outcome in ("warned", "unmeasured") for each in found):
        status = "warned"
    group = f"the {int(correct.sum())} right answers" if alone else "all of them, for want of right ones"
    return Verdict(status, task, doubts + failed, group, len(correct), float(correct.mean()), found, invariants)


def _measured(
    name: str, asked: Mapping[str, Any], found: Mean, adjusted: float | None, level: float, wrong: Mean | None
) -> Measured:
    if not found.examples:
        outcome = "unmeasured"
    else:
        above = (found.p if adjusted is None else adjusted) <= level
        outcome = "passed" if above else "failed" if asked["block"] else "warned"
    return Measured(name, bool(asked["block"]), float(asked["bound"]), found, adjusted, outcome, wrong)


def _why(each: Measured) -> str:
    return (
        f"{each.name} is {each.mean.value:.3f} [{each.mean.low:.3f}, {each.mean.high:.3f}], not certainly above "
        f"{each.bound:g} ({SAID[each.name]})"
    )
