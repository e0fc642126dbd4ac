"""The report of a comparison: HTML with a plot of each drifting column, and Markdown."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runs import page
from runs.page import badge, escaped, number

HEADER = ("column", "statistic", "value", "threshold", "p", "effect", "PSI", "JS")
_KINDS = ("i", "", "n", "n", "n", "n", "n", "n")


def write(folder: Path, result: Mapping[str, Any]) -> None:
    """Writes report.html and report.md.

    Args:
        folder: where to.
        result: what drift.json has.
    """
    rows = result["rows"]
    said = (
        f"{number(rows['new'])} rows of {result['split']} beside {number(rows['reference'])} of the reference "
        f"{result['reference']}. A column has drifted when its statistic is beyond what the reference shows against "
        f"itself, all columns at once in {1 - result['level']:.0%} of cases, and its p-value, corrected for their number "
        f"(Holm), is below {result['level']:g}. Effect: of numbers the difference of means in the reference's standard "
        "deviations, of categories Cramér's V."
    )
    drifted = [each for each in result["columns"] if each["drifted"]]
    parts = [f"<h1>Drift: {badge(result['status'])}</h1>", f"<p>{escaped(said)}</p>"]
    if drifted:
        parts += ["<h2>Columns that drifted</h2>", page.key(["reference", "new"]), "<div class='grid'>"]
        parts += [
            f"<div class='card'><h3>{escaped(each['name'])}</h3>{_plot(each['shown'])}{_effect(each)}</div>"
            for each in drifted
        ]
        parts.append("</div>")
    body = [
        [f"{escaped(each['name'])} {badge('drifted') if each['drifted'] else ''}", *map(escaped, _cells(each))]
        for each in result["columns"]
    ]
    parts.append("<h2>All columns</h2>" + page.table(HEADER, body, _KINDS))
    page.write(folder / "report.html", f"Drift: {result['status']}", parts)
    (folder / "report.md").write_text(_markdown(result, said), encoding="utf-8")


def _plot(shown: Mapping[str, Any]) -> str:
    if "edges" in shown:
        return page.histogram(shown["edges"], shown["bars"])
    return page.balance(shown["counts"])


def _effect(each: Mapping[str, Any]) -> str:
    what = "standard deviations" if each["kind"] == "number" else "Cramér's V"
    return f"<p class='small'>{each['statistic']} {number(each['value'])} (threshold {number(each['threshold'])}), {number(each['effect'])} {what}</p>"


def _cells(each: Mapping[str, Any]) -> list[str]:
    p = f"{each['p']:.2g}" if each["p"] >= 1e-12 else "< 1e-12"
    return [
        each["statistic"],
        *(f"{each[name]:.3f}" for name in ("value", "threshold")),
        p,
        *(f"{each[name]:.3f}" for name in ("effect", "psi", "jensen_shannon")),
    ]


def _markdown(result: Mapping[str, Any], said: str) -> str:
    lines = [f"# Drift: {result['status']}", "", said, "", f"| {' | '.join(HEADER)} | drifted |"]
    lines.append("|---|---|---:|---:|---:|---:|---:|---:|---|")
    for each in result["columns"]:
        lines.append(f"| {each['name']} | {' | '.join(_cells(each))} | {'yes' if each['drifted'] else ''} |")
    return "\n".join(lines) + "\n"
