"""The report of a comparison: an HTML page with a plot of each drifted column, and Markdown."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from config import files
from datamodules.classes import format_names
from reports import page
from reports.markdown import escape, table
from reports.page import Cell, format_rounded

COLUMNS = [
    ("column", "id"), ("statistic", ""), ("value", "number"), ("threshold", "number"), ("p", "number"), ("effect", "number"),
    ("PSI", "number"), ("JS", "number"),
]  # fmt: skip


def write(folder: Path, result: Mapping[str, Any]) -> None:
    """Write report.html and report.md.

    Args:
        folder: the folder to write to.
        result: content of drift.json.
    """
    rows = result["rows"]
    summary = (
        f"{format_rounded(rows['new'])} rows of {result['split']} compared with {format_rounded(rows['reference'])} rows of "
        f"the reference {result['reference']}."
    )
    method = (
        "A column has drifted if its statistic exceeds the threshold and its p-value, corrected for the number of columns "
        f"(Holm), is below {result['level']:g}, or if it has so many rows in categories that only one side has that such a "
        "division of all rows is improbable. Parts of the reference, compared with each other, stay below the "
        f"thresholds of all columns in {1 - result['level']:.0%} of cases. Effect: for numbers the difference of the means "
        "in standard deviations of the reference, for categories Cramér's V."
    )
    changes = [(column["name"], text) for column in result["columns"] if (text := describe_categories(column))]
    page.write(
        folder / "report.html",
        "drift.html.jinja",
        title="Data drift",
        status=result["status"],
        summary=summary,
        method=method,
        drifted=[column for column in result["columns"] if column["drifted"]],
        changes=changes,
        columns=COLUMNS,
        rows=[
            [Cell(column["name"], badge="drifted" if column["drifted"] else ""), *_values(column)]
            for column in result["columns"]
        ],
    )
    header = [*(title for title, _ in COLUMNS), "drifted"]
    rows = [
        [*map(escape, (column["name"], *_values(column))), "yes" if column["drifted"] else ""]
        for column in result["columns"]
    ]
    lines = [f"# Data drift: {escape(result['status'])}", "", escape(summary), "", method, ""]
    lines.append(table(header, rows, "|---|---|---:|---:|---:|---:|---:|---:|---|"))
    if changes:
        lines += [
            "",
            "## Categories of one side only",
            "",
            *(f"- {escape(name)}: {escape(text)}" for name, text in changes),
        ]
    files.write_text(folder / "report.md", "\n".join(lines) + "\n")


def describe_categories(column: Mapping[str, Any]) -> str:
    """Return in words which categories of a column only one side has; "" if there are none."""
    parts = []
    for key, phrase in (("unseen", "not in the reference"), ("vanished", "not in the new data")):
        if counts := column[key]:
            names = [f"{name} ({format_rounded(count)} row{'s' * (count != 1)})" for name, count in counts.items()]
            parts.append(f"{phrase}: {format_names(names)}")
    return "; ".join(parts)


def _values(column: Mapping[str, Any]) -> list[str]:
    """Return the values of a column's row as text, without its name."""
    p = f"{column['p']:.2g}" if column["p"] >= 1e-12 else "< 1e-12"
    value, threshold, effect, psi, distance = (
        f"{column[name]:.3f}" for name in ("value", "threshold", "effect", "psi", "jensen_shannon")
    )
    return [column["statistic"], value, threshold, p, effect, psi, distance]
