"""The report of a verdict: an HTML page with the rows that violate its checks, and Markdown."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from config import files
from config.numbers import format_count
from quality.description import Description
from quality.verdict import CheckResult, Verdict
from reports import page
from reports.markdown import code, code_block, escape, table
from reports.page import Piece, Span, data_uri, format_rounded

CONTEXT = 90  # characters on each side of a span
MAX_CHARACTERS = 400  # of a text
MAX_BALANCE = 12  # categories in a card of normal width
_MISPLACED = "A dashed underline is where a part is declared to be; where it is instead, if anywhere, is marked."
OUTCOMES = ("failed", "unevaluated", "warned", "passed")


def write(
    folder: Path, verdict: Verdict, profile: Mapping[str, Any], description: Description, data: Any = None
) -> None:
    """Write report.html and report.md.

    Args:
        folder: the folder to write to.
        verdict: the verdict.
        profile: result of `quality.profile.write`.
        description: of the task's table of facts.
        data: the data module, for its pictures.
    """
    pictures = None
    if description.pictures is not None:
        rows = [row for check in verdict.checks for row in check.examples]
        rows += [row for name in description.pictured for end in profile["extremes"][name].values() for row in end]
        pictures = description.pictures(data, rows)
    counts = ", ".join(f"{format_rounded(count)} {split}" for split, count in sorted(profile["rows"].items()))
    outcomes = ", ".join(f"{len(verdict.by(outcome))} {outcome}" for outcome in OUTCOMES)
    page.write(
        folder / "report.html",
        "contract.html.jinja",
        title=f"Data contract {verdict.contract}",
        status=verdict.status,
        summary=[
            ("Data", f"{counts} {description.examples}"),
            ("Checks", f"{len(verdict.checks)}: {outcomes}"),
            ("Time", verdict.when),
            ("Fingerprint", verdict.fingerprint[:16]),
            ("Versions", ", ".join(f"{name} {version}" for name, version in verdict.versions.items())),
        ],
        errors=verdict.errors[:4000],
        violated_checks=[
            _check_section(check, description, pictures) for outcome in OUTCOMES[:-1] for check in verdict.by(outcome)
        ],
        checks=[[check.outcome, check.kind, check.name, check.value, check.threshold] for check in verdict.checks],
        **_statistics(profile),
        **_extremes(profile, description, pictures),
    )
    files.write_text(folder / "report.md", format_markdown(verdict, counts))


def _check_section(check: CheckResult, description: Description, pictures: Any) -> dict[str, Any]:
    """Return the section of a violated check, with the first rows that violate it."""
    hidden = {"split", "number", "id", *(start for _, start in description.spans.values())}  # texts show the spans
    names = [name for name in check.columns if name not in hidden]
    spans = [_declared_spans(row, name, description) for row in check.examples for name in names]
    first = f", the first {len(check.examples)} are listed" if (check.rows or 0) > len(check.examples) else ""
    return {
        "outcome": check.outcome,
        "name": check.name,
        "value": check.value,
        "threshold": check.threshold,
        "path": check.path,
        "message": check.message,
        "summary": f"{format_rounded(check.rows)} row{'s' * (check.rows != 1)}{first}",
        "note": _MISPLACED if any(row and row[0].incorrect for row in spans) else "",
        "columns": [
            *([("picture", "image")] if pictures else []),
            ("split", ""),
            ("id", "id"),
            *((name, _kind(name, description)) for name in names),
        ],
        "rows": [
            [
                *([_picture(pictures, row)] if pictures else []),
                row["split"],
                row["id"],
                *(_value(row, name, description) for name in names),
            ]
            for row in check.examples
        ],
    }


def _kind(name: str, description: Description) -> str:
    if name in description.spans:
        return "pieces"
    if name.endswith("_hash"):
        return "code"
    return "text" if name in description.texts else "id"


def _value(row: Mapping[str, Any], name: str, description: Description) -> str | list[Piece] | None:
    """Return a value of a row for a cell of its column's kind."""
    value = row[name]
    if value is None:
        return None
    if name.endswith("_hash"):
        return f"{value % 2**64:016x}"
    if name in description.spans:
        return page.mark_excerpt(value, _declared_spans(row, name, description), CONTEXT)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return format_rounded(value) if isinstance(value, int | float) else str(value)[:MAX_CHARACTERS] or "∅"


def _declared_spans(row: Mapping[str, Any], name: str, description: Description) -> list[Span]:
    """Return where a part of a text is declared to be and, if it is not there, also the nearest place where it is."""
    part, start = (row.get(column) for column in description.spans.get(name, ("", "")))
    text = row[name]
    if part is None or start is None or text is None:
        return []
    if start >= 0 and text.startswith(part, start):
        return [Span(start, start + len(part))]
    declared = Span(start, start + len(part), f"not at character {start}", incorrect=True)
    starts = [match.start() for match in re.finditer(f"(?={re.escape(part)})", text)] if part else []
    nearest = min(starts, key=lambda other: abs(other - start), default=None)
    return [declared, *([] if nearest is None else [Span(nearest, nearest + len(part), f"at character {nearest}")])]


def _picture(pictures: Any, row: Mapping[str, Any]) -> str | None:
    content = pictures.thumbnail(row)
    return None if content is None else data_uri(content, "image/jpeg")


def _statistics(profile: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cards of the columns with more than one value, and the constant columns."""
    cards: list[dict[str, Any]] = []
    wide_cards: list[dict[str, Any]] = []
    constants: list[str] = []
    for name, column in profile["columns"].items():
        card = {"name": name, "missing": sum(column["missing"].values())}
        values = _distinct_values(column)
        if len(values) <= 1 and not card["missing"]:
            constants.append(f"{name} {values[0] if values else 'none'}")
        elif column["kind"] == "number":
            numbers = [
                [split, *(format_rounded(row[statistic], 3) for statistic in ("min", "mean", "std", "max"))]
                for split, row in column["numbers"].items()
            ]
            cards.append(card | {"edges": column["edges"], "bars": column["bars"], "numbers": numbers})
        else:
            group = wide_cards if len(values) > MAX_BALANCE else cards
            group.append(card | {"counts": column["counts"]})
    return {"cards": cards, "wide_cards": wide_cards, "constants": constants}


def _distinct_values(column: Mapping[str, Any]) -> list[str]:
    """Return the values of a category, or the extremes of a number."""
    if column["kind"] == "number":
        ends = [row[end] for row in column["numbers"].values() for end in ("min", "max") if row[end] is not None]
        return sorted({format_rounded(value) for value in ends})
    return sorted({value for counts in column["counts"].values() for value in counts})


def _extremes(profile: Mapping[str, Any], description: Description, pictures: Any) -> dict[str, Any]:
    """Return the rows with the lowest and the highest values: galleries of pictures, or a table if there are none."""
    extremes = profile["extremes"]
    if pictures is not None:
        galleries = [
            (
                name,
                [
                    (_picture(pictures, row), [format_rounded(row["value"], 3), row["id"].rpartition("/")[2]])
                    for end in ("least", "most")
                    for row in extremes[name][end]
                ],
            )
            for name in description.pictured
        ]
        return {"galleries": [gallery for gallery in galleries if gallery[1]]}
    captions = [(description.caption, "text")] if description.caption else []
    rows = [
        [name, row["value"], row["id"], *(str(row["caption"] or "")[:MAX_CHARACTERS] for _ in captions)]
        for name, ends in extremes.items()
        if len(_distinct_values(profile["columns"][name])) > 1
        for end in ("least", "most")
        for row in ends[end][:1]
    ]
    columns = [("column", ""), ("value", "number"), ("id", "id"), *captions]
    return {"galleries": None, "extreme_columns": columns, "extremes": rows}


def format_markdown(verdict: Verdict, counts: str) -> str:
    """Return the verdict as Markdown, for GitHub's step summary.

    Args:
        verdict: the verdict.
        counts: examples of each split, in words.
    """
    lines = [f"# Data contract {escape(verdict.contract)}: {verdict.status}", ""]
    lines += [f"{format_count(len(verdict.checks), 'check')} over {counts}.", ""]
    if verdict.errors:
        lines += [code_block(verdict.errors[:2000]), ""]
    rows = [
        [
            check.outcome,
            escape(check.name),
            escape(format_rounded(check.value)),
            escape(check.threshold),
            "" if check.rows is None else f"{check.rows:,}",
            ", ".join(code(row["id"]) for row in check.examples[:3]),
        ]
        for outcome in OUTCOMES[:-1]
        for check in verdict.by(outcome)
    ]
    if rows:
        header = ["outcome", "check", "value", "required", "rows", "examples"]
        lines.append(table(header, rows, "|---|---|---:|---|---:|---|"))
    return "\n".join(lines) + "\n"
