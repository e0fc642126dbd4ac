"""The report of an export: an HTML page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reports import page
from reports.page import Cell, format_rounded

FILE = "report.html"
CHANGES = 200  # answers on the page; all are in changed.jsonl
LOWEST = 20  # explanations on the page
SPEED = [
    ("median_ms", "Latency of one example, median (ms)"),
    ("p95_ms", "95th percentile (ms)"),
    ("p99_ms", "99th percentile (ms)"),
    ("examples_per_second", "Examples per second, in batches of 8"),
    ("size_mib", "Size of the model (MiB)"),
]


def write(folder: Path, verdict: Mapping[str, Any], changed: Sequence[Mapping[str, Any]]) -> None:
    """Write report.html.

    Args:
        folder: the folder to write to.
        verdict: content of verdict.json.
        changed: content of changed.jsonl.
    """
    explanations = verdict["explanations"]
    page.write(
        folder / FILE,
        "export.html.jinja",
        title="Export",
        status=verdict["status"],
        reasons=[reason[:1].upper() + reason[1:] for reason in verdict["reasons"]],
        summary=_summary(verdict),
        metrics=[_metric_row(metric) for metric in verdict["metrics"]],
        margin=verdict["bounds"]["margin"],
        notes=verdict["notes"],
        speed=[_speed_row(key, title, verdict["speed"]) for key, title in SPEED],
        requests=verdict["speed"]["exported"]["requests"],
        threads=verdict["hardware"]["threads"],
        explanations=_describe_explanations(explanations, verdict["bounds"]["agreement"]),
        lowest=[[line["id"], line["correlation"]] for line in explanations.get("lines", [])[:LOWEST]],
        changed=[
            [
                row["id"],
                Cell(_text(row["original"]), badge="correct" if row["original_correct"] else "incorrect"),
                Cell(_text(row["exported"]), badge="correct" if row["exported_correct"] else "incorrect"),
            ]
            for row in changed[:CHANGES]
        ],
        changed_count=len(changed),
        examples=verdict["examples"],
    )


def _summary(verdict: Mapping[str, Any]) -> list[tuple[str, Any]]:
    versions = ", ".join(f"{name} {release}" for name, release in verdict["versions"].items())
    return [
        (
            "Original",
            f"{verdict['parent']} ({verdict['parent_sha256'][:12]}, precision {verdict['original_precision']})",
        ),
        ("Export", f"{verdict['format']} ({verdict['model_sha256'][:12]}): {verdict['method']}"),
        ("Examples", f"{format_rounded(verdict['examples'])} of the validation split ({verdict['data'][:24]})"),
        ("Processor", f"{verdict['hardware'].get('cpu')}, {verdict['hardware']['threads']} threads"),
        ("Computed with", versions),
        ("Date", verdict["when"]),
    ]


def _metric_row(metric: Mapping[str, Any]) -> list[Any]:
    outcome = {None: "not tested", True: "passed", False: "failed"}[metric["non_inferior"]]
    interval = f"{metric['low']:+.3g} to {metric['high']:+.3g}"
    return [
        outcome,
        metric["metric"],
        metric["original"],
        metric["exported"],
        f"{metric['difference']:+.3g}",
        interval,
        None if metric["worst"] is None else f"{metric['worst']:+.3g}",
    ]


def _speed_row(key: str, title: str, speed: Mapping[str, Mapping[str, float]]) -> list[Any]:
    original, exported = speed["original"][key], speed["exported"][key]
    return [title, f"{original:.2f}", f"{exported:.2f}", f"{exported / original:.2f}" if original else None]


def _describe_explanations(explanations: Mapping[str, Any], bound: float) -> str:
    if "skipped" in explanations:
        return f"Not compared: {explanations['skipped']}."
    if explanations["mean"] is None:
        return "None could be compared: all answers of the sample differ."
    return (
        f"Mean rank correlation {explanations['mean']:.3f} over {explanations['examples']} examples (at least {bound:g}), the "
        f"lowest {explanations['lowest']:.3f}; {explanations['different']} more are not compared, because their answers differ."
    )


def _text(value: Any) -> str:
    return str(value) if value not in (None, "") else "no answer"
