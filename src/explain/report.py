"""The report's page: what was measured, with pictures and texts to see it in."""

from collections.abc import Mapping, Sequence
from types import ModuleType

import numpy as np

from explain.judgement import Verdict
from runs import charts, page
from runs.page import badge, escaped, number
from runs.statistics import MeanEstimate

LIMITS = (
    "A pass says that what the model looks at is better than chance by these measures, on this sample. It does not say "
    "that the model is right, fair or safe, nor that it looks at the right thing for the right reason."
)


def html(verdict: Verdict, parts: Sequence[str], explainer: ModuleType, examples: str) -> list[str]:
    """The page, in parts.

    Args:
        verdict: of the model.
        parts: HTML of what is particular to the task.
        explainer: of the task: what its measures mean, and how steady its values are.
        examples: what the task calls its examples.
    """
    about = verdict.provenance
    head = [
        f"<h1>Explanations: {badge(verdict.status)}</h1>",
        f"<p>{number(verdict.examples)} {examples} of the evaluation set, {verdict.accuracy:.0%} of them right. "
        f"Judged are {escaped(verdict.judged)}.</p>",
        "".join(f"<p><b>{escaped(why[:1].upper() + why[1:])}.</b></p>" for why in verdict.reasons),
        f"<p class='small'>{about['when']} · model {about['model'][:12]} · sample {about['sample'][:12]} · "
        f"{'bfloat16' if about['settings']['bfloat16'] else 'float32'} · "
        + escaped(", ".join(f"{name} {release}" for name, release in about["versions"].items()))
        + "</p>",
        "<h2>Measures</h2>",
        _measures(verdict, explainer.MEASURES),
        f"<p class='small'>Bars are 95 % intervals of the mean; the line is the bound that a measure must be above. {LIMITS} "
        f"Values add up to the prediction within {verdict.invariants['additivity']:.1g}; "
        f"{explainer.STABILITY.format(stability=verdict.invariants['stability'])}.</p>",
    ]
    return [*head, *parts, *_slices(verdict), *_calibration(verdict)]


def _measures(verdict: Verdict, meanings: Mapping[str, str]) -> str:
    shown = [measure for measure in verdict.measures if measure.mean.examples]
    ends = [value for row in shown for value in (row.mean.low, row.mean.high, row.bound) if np.isfinite(value)]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    rows = []
    for measure in verdict.measures:
        mean = measure.mean
        name = f"<b>{measure.name}</b>{'' if measure.block else ' <span class=small>(does not block)</span>'}"
        meaning = f"{name}<br><span class='small'>{escaped(meanings[measure.name])}</span>"
        wrong = (
            ""
            if measure.mean_of_errors is None or not measure.mean_of_errors.examples
            else f"{measure.mean_of_errors.value:.3f}"
        )
        p = "" if measure.adjusted is None else f"{measure.adjusted:.4f}"
        value = f"{mean.value:.3f}" if mean.examples else "-"
        plot = _interval(mean, measure.bound, low, high) if mean.examples else ""
        rows.append([badge(measure.outcome), meaning, value, plot, p, number(mean.examples), wrong])
    header = ["outcome", "measure", "mean", "95 % interval", "p", "of", "when wrong"]
    return page.table(header, rows, ["", "t", "n", "", "n", "n", "n"])


def _interval(mean: MeanEstimate, bound: float, low: float, high: float) -> str:
    wide, scale = 200, 180 / ((high - low) or 1.0)

    def x(value: float) -> float:
        return 10 + (min(max(value, low), high) - low) * scale

    colour = "#2e7d4f" if mean.low > bound else "#a33a3a"
    return (
        f"<svg viewBox='0 0 {wide} 20' style='width:{wide}px' role='img' aria-label='{mean.low:.3f} to {mean.high:.3f}'>"
        f"<line x1='{x(bound):.1f}' x2='{x(bound):.1f}' y1='1' y2='19' class='grid-line'/>"
        f"<line x1='{x(mean.low):.1f}' x2='{x(mean.high):.1f}' y1='10' y2='10' stroke='{colour}' stroke-width='3'/>"
        f"<circle cx='{x(mean.value):.1f}' cy='10' r='4.5' fill='{colour}'/></svg>"
    )


def _slices(verdict: Verdict) -> list[str]:
    if not verdict.slices:
        return []
    names = list(verdict.slices[0]["measures"])
    rows = [
        [
            escaped(row["by"]),
            escaped(row["slice"]),
            number(row["examples"]),
            f"{row['accuracy']:.0%}",
            f"{row['gap'][0]:+.2f} [{row['gap'][1]:.2f}, {row['gap'][2]:.2f}]",
            *("-" if np.isnan(row["measures"][name]) else f"{row['measures'][name]:.3f}" for name in names),
        ]
        for row in verdict.slices
    ]
    kinds = ["", "", "n", "n", "w", *["n"] * len(names)]
    header = ["by", "slice", "examples", "right", "gap to the rest", *names]
    return ["<h2>Slices</h2>", page.table(header, rows, kinds), _SLICES]


_SLICES = (
    "<p class='small'>The gap is the accuracy of the rest less the slice's, with its 95 % interval. Of many slices the widest gap "
    "is wide by chance too: explain.slice_gap makes the gate fail only where an interval lies above it whole.</p>"
)


def _calibration(verdict: Verdict) -> list[str]:
    calibration = verdict.calibration
    return [
        "<h2>Confidence</h2>",
        f"<p>The model's confidence is off by {calibration['error']:.3f} on average (expected calibration error; 0 is best).</p>",
        charts.reliability(calibration["bins"]),
    ]


def markdown(verdict: Verdict, examples: str) -> str:
    """The verdict as Markdown; `examples` is what the task calls its examples."""
    lines = [
        f"# Explanations: {verdict.status}",
        "",
        f"{verdict.examples} {examples}, {verdict.accuracy:.0%} right. Judged are {verdict.judged}.",
        "",
        *(f"- {why}" for why in verdict.reasons),
        *([""] if verdict.reasons else []),
        "| outcome | measure | mean | 95 % interval | bound |",
        "|---|---|---:|---|---:|",
    ]
    for measure in verdict.measures:
        mean = measure.mean
        if mean.examples:
            interval = f"{mean.low:.3f} to {mean.high:.3f}"
            lines.append(f"| {measure.outcome} | {measure.name} | {mean.value:.3f} | {interval} | {measure.bound:g} |")
        else:
            lines.append(f"| {measure.outcome} | {measure.name} | | | {measure.bound:g} |")
    return "\n".join([*lines, "", LIMITS]) + "\n"
