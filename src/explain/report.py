"""The report of a verdict: an HTML page, and Markdown for a step summary."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from explain.judgement import Verdict
from reports import page
from reports.markdown import escape
from reports.page import Cell, Piece
from runs.statistics import MeanEstimate

LIMITS = (
    "A pass means that what the model looks at is better than chance by these measures, on this sample. It does not mean "
    "that the model is correct, fair or safe, nor that it looks at the right features for the right reason."
)

EARLY = (
    "The explanations stopped because the values so far were high, so means and intervals are on average a little higher than "
    "those of the whole sample."
)


@dataclass(frozen=True)
class Part:
    """A part of a text, with its words.

    Attributes:
        label: name of the part.
        value: its value.
        strength: its value as a share of the largest absolute value of the example, -1 to 1.
        pieces: its text.
    """

    label: str
    value: float
    strength: float
    pieces: Sequence[Piece]


@dataclass(frozen=True)
class Card:
    """An explained example.

    Attributes:
        title: its prediction.
        correct: whether the prediction is correct.
        note: small text below.
        parts: of its text.
        figures: of an image: data URI and lines of the caption.
    """

    title: str
    correct: bool
    note: str
    parts: Sequence[Part] = ()
    figures: Sequence[tuple[str, Sequence[str]]] = ()


@dataclass(frozen=True)
class Section:
    """A section of the page: a note, then cards, a table, or figures.

    Attributes:
        title: heading.
        note: small text.
        cards: explained examples.
        columns, rows: of a table, as `reports.page` describes them.
        figures: data URI and lines of the caption.
    """

    title: str
    note: str = ""
    cards: Sequence[Card] = ()
    columns: Sequence[tuple[str, str]] = ()
    rows: Sequence[Sequence[Any]] = ()
    figures: Sequence[tuple[str, Sequence[str]]] = ()


def write(path: Path, verdict: Verdict, sections: Sequence[Section], explainer: ModuleType, examples: str) -> None:
    """Write the page.

    Args:
        path: the page.
        verdict: of the model.
        sections: those of the task.
        explainer: of the task: descriptions of its measures and of their stability.
        examples: what the task calls its examples.
    """
    page.write(
        path,
        "explain.html.jinja",
        title="Explanations",
        status=verdict.status,
        reasons=[reason[:1].upper() + reason[1:] for reason in verdict.reasons],
        summary=_summary(verdict, examples),
        measures=_measure_rows(verdict, explainer.MEASURES),
        notes=[
            "The line in an interval is the bound that the mean must exceed.",
            *([EARLY] if verdict.stop.get("sample", verdict.examples) > verdict.examples else []),
            LIMITS,
            f"Values add up to the prediction within {verdict.invariants['additivity']:.1g}; "
            f"{explainer.STABILITY.format(stability=verdict.invariants['stability'])}.",
        ],
        sections=[*sections, *_slices(verdict)],
        calibration=verdict.calibration,
    )


def _summary(verdict: Verdict, examples: str) -> list[tuple[str, Any]]:
    provenance = verdict.provenance
    versions = ", ".join(f"{name} {release}" for name, release in provenance["versions"].items())
    precision = "bfloat16" if provenance["settings"]["bfloat16"] else "float32"
    return [
        ("Sample", f"{_sample_text(verdict, examples)} of the evaluation set"),
        *([("Look", look)] if (look := _look_text(verdict.stop)) else []),
        ("Accuracy", page.format_percent(verdict.accuracy)),
        ("Judged", verdict.judged),
        ("Date", provenance["when"]),
        ("Fingerprints", f"model {provenance['model'][:12]}, sample {provenance['sample'][:12]}"),
        ("Computed with", f"{versions}, {precision}"),
    ]


def _sample_text(verdict: Verdict, examples: str) -> str:
    size = verdict.stop.get("sample", verdict.examples)
    part = "" if size == verdict.examples else f" of {page.format_rounded(size)}"
    return f"{page.format_rounded(verdict.examples)}{part} {examples}"


def _look_text(stop: Mapping[str, Any]) -> str:
    """Return at which look the explanations ended, and why; "" if there was one look."""
    if stop.get("looks", 1) == 1:
        return ""
    text = f"{stop['look']} of {stop['looks']}, at the significance level {stop['alpha']:.3g}: {stop['reason']}"
    return text if stop["examples"] == stop["sample"] else f"{text}; explain.looks=1 explains the whole sample"


def _measure_rows(verdict: Verdict, meanings: Mapping[str, str]) -> list[list[Any]]:
    means = [(measure.mean, measure.bound) for measure in verdict.measures if measure.mean.examples]
    ends = [
        0.0,
        *(end for mean, bound in means for end in (mean.value, mean.low, mean.high, bound) if np.isfinite(end)),
    ]
    return [
        [
            measure.outcome,
            Cell(measure.name + ("" if measure.block else " (advisory)"), note=meanings[measure.name]),
            _mean_text(measure.mean),
            (measure.mean.value, measure.mean.low, measure.mean.high, min(ends), max(ends), measure.bound)
            if measure.mean.examples
            else "",
            None if measure.adjusted is None else f"{measure.adjusted:.4f}",
            measure.mean.examples,
            _mean_text(measure.mean_of_errors),
        ]
        for measure in verdict.measures
    ]


def _mean_text(mean: MeanEstimate | None) -> str | None:
    return f"{mean.value:.3f}" if mean is not None and mean.examples else None


def _slices(verdict: Verdict) -> list[Section]:
    if not verdict.slices:
        return []
    names = list(verdict.slices[0]["measures"])
    rows = [
        [
            row["by"],
            row["slice"],
            row["examples"],
            page.format_percent(row["accuracy"]),
            "{:+.2f} [{:.2f}, {:.2f}]".format(*row["gap"]),
            *(None if np.isnan(row["measures"][name]) else f"{row['measures'][name]:.3f}" for name in names),
        ]
        for row in verdict.slices
    ]
    columns = [("by", ""), ("slice", ""), ("examples", "number"), ("accuracy", "number"), ("gap", "nowrap")]
    note = (
        "The gap is the accuracy of the other examples less that of the slice, with its 95 % interval. With many slices "
        "the widest gap is wide by chance: explain.slice_gap fails the gate only if a whole interval lies above it."
    )
    return [Section("Slices", note, columns=[*columns, *((name, "number") for name in names)], rows=rows)]


def markdown(verdict: Verdict, examples: str) -> str:
    """Return the verdict as Markdown.

    Args:
        verdict: of the model.
        examples: what the task calls its examples.
    """
    lines = [
        f"# Explanations: {verdict.status}",
        "",
        f"{_sample_text(verdict, examples)}, accuracy {page.format_percent(verdict.accuracy)}. Judged: {escape(verdict.judged)}."
        + (f" Look {look}." if (look := _look_text(verdict.stop)) else ""),
        "",
        *(f"- {escape(reason)}" for reason in verdict.reasons),
        *([""] if verdict.reasons else []),
        "| outcome | measure | mean | 95 % interval | bound |",
        "|---|---|---:|---|---:|",
    ]
    for measure in verdict.measures:
        mean = measure.mean
        interval = f"{mean.low:.3f} to {mean.high:.3f}" if mean.examples else ""
        value = _mean_text(mean) or ""
        lines.append(f"| {measure.outcome} | {measure.name} | {value} | {interval} | {measure.bound:g} |")
    return "\n".join([*lines, "", LIMITS]) + "\n"
