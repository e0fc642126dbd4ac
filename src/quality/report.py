"""The report of a verdict: for people as HTML and Markdown, with the rows that break its checks."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quality.description import Description
from quality.verdict import CheckResult, Verdict
from runs import page
from runs.page import badge, escaped, number

AROUND = 90  # characters shown on each side of a part of a text
CUT = 400  # characters of a text that are shown


def write(
    folder: Path, verdict: Verdict, profile: Mapping[str, Any], description: Description, data: Any = None
) -> None:
    """Writes report.html and report.md.

    Args:
        folder: where to.
        verdict: whose report it is.
        profile: of `quality.profile.write`.
        description: of the task's table of facts.
        data: the data module, for its pictures.
    """
    pictures = None
    if description.pictures is not None:
        wanted = [row for check in verdict.checks for row in check.examples]
        wanted += [row for name in description.pictured for rows in profile["extremes"][name].values() for row in rows]
        pictures = description.pictures(data, wanted)
    title = f"Data contract {verdict.contract}: {verdict.status}"
    rows = ", ".join(f"{number(count)} {split}" for split, count in sorted(profile["rows"].items()))
    versions = ", ".join(f"{name} {version}" for name, version in verdict.versions.items())
    outcomes = ("failed", "unevaluated", "warned", "passed")
    parts = [
        f"<h1>Data contract {escaped(verdict.contract)}: {badge(verdict.status)}</h1>",
        f"<p>{number(len(verdict.checks))} checks over {rows} {escaped(description.examples)}: "
        + ", ".join(f"{number(len(verdict.by(outcome)))} {outcome}" for outcome in outcomes)
        + f".</p><p class='small'>{verdict.when} · {escaped(versions)} · content {verdict.fingerprint[:16]}</p>",
    ]
    if verdict.errors:
        parts.append(
            f"<h2>What could not be evaluated</h2><pre class='scroll small'>{escaped(verdict.errors[:4000])}</pre>"
        )
    for outcome in outcomes[:-1]:
        parts += [_broken(check, description, pictures) for check in verdict.by(outcome)]
    parts.append("<h2>All checks</h2>" + _checks(verdict.checks))
    parts += _statistics(profile, description, pictures)
    page.write(folder / "report.html", title, parts)
    (folder / "report.md").write_text(markdown(verdict, rows), encoding="utf-8")


def _broken(check: CheckResult, description: Description, pictures: Any) -> str:
    parts = [f"<h2>{badge(check.outcome)} {escaped(check.name)}</h2>"]
    found = "nothing" if check.value is None else number(check.value)
    parts.append(
        f"<p>Found {found}; must be {escaped(check.threshold)}. <span class='small'>{escaped(check.path)}</span></p>"
    )
    if check.message:
        parts.append(f"<p>{escaped(check.message)}</p>")
    if check.rows:
        shown = f", the first {len(check.examples)} of them" if check.rows > len(check.examples) else ""
        parts.append(
            f"<p class='small'>{number(check.rows)} row{'s' * (check.rows != 1)}{shown}; all are in rows.jsonl.</p>"
        )
        parts.append(_examples(check.examples, check.columns, description, pictures))
    return "".join(parts)


def _examples(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], description: Description, pictures: Any
) -> str:
    hidden = {"split", "number", "id"}
    for text, (part, start) in description.spans.items():
        hidden |= {part, start} if text in columns else {start}  # the part is marked in its text
    shown = [name for name in columns if name not in hidden]
    header = [*(["picture"] if pictures else []), "split", "id", *shown]
    kinds = [*([""] if pictures else []), "", "i", *("t" if name in description.texts else "i" for name in shown)]
    body = []
    for row in rows:
        first = [_picture(pictures, row)] if pictures else []
        cells = (_cell(row, name, description) for name in shown)
        body.append([*first, escaped(row["split"]), escaped(row["id"]), *cells])
    return page.table(header, body, kinds)


def _cell(row: Mapping[str, Any], name: str, description: Description) -> str:
    value = row[name]
    if value is None:
        return "<span class='small'>none</span>"
    if name.endswith("_hash"):
        return f"<code>{value % 2**64:016x}</code>"
    if name in description.spans:
        part, start = description.spans[name]
        return _marked(value, row.get(part), row.get(start))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, int | float) else escaped(str(value)[:CUT])


def _marked(text: str, part: str | None, start: int | None) -> str:
    """A text around a part of it, which is marked where it is said to be."""
    if part is None or start is None:
        return escaped(text[: 2 * AROUND]) + (" ..." if len(text) > 2 * AROUND else "")
    first, last = max(0, start), max(0, start + len(part))
    before, after = text[max(0, first - AROUND) : first], text[last : last + AROUND]
    return (
        ("... " if first > AROUND else "")
        + f"{escaped(before)}<mark>{escaped(text[first:last]) or '∅'}</mark>{escaped(after)}"
        + (" ..." if len(text) > last + AROUND else "")
    )


def _picture(pictures: Any, row: Mapping[str, Any]) -> str:
    content = pictures.thumbnail(row)
    if content is None:
        return "<span class='small'>cannot be shown</span>"
    return f"<img alt='' width='72' src='data:image/jpeg;base64,{base64.b64encode(content).decode()}'>"


def _checks(checks: Sequence[CheckResult]) -> str:
    rows = [
        [badge(check.outcome), escaped(check.kind), escaped(check.name), number(check.value), escaped(check.threshold)]
        for check in checks
    ]
    return page.table(["outcome", "kind", "check", "found", "must be"], rows, ["", "", "", "n", ""])


def _statistics(profile: Mapping[str, Any], description: Description, pictures: Any) -> list[str]:
    parts = ["<h2>The data</h2>", page.key(["train", "val"]), "<div class='grid'>"]
    wide: list[str] = []
    same: list[str] = []
    for name, column in profile["columns"].items():
        missing = sum(column["missing"].values())
        said = f"<p class='small'>{number(missing)} missing</p>" if missing else ""
        values = _values(column)
        if len(values) <= 1 and not missing:
            same.append(f"{name} {values[0] if values else 'none'}")
        elif column["kind"] == "number":
            rows = [
                [split, *(page.short(each[what]) for what in ("min", "mean", "std", "max"))]
                for split, each in column["numbers"].items()
            ]
            numbers = page.table(["", "min", "mean", "std", "max"], rows, ["", "n", "n", "n", "n"])
            plot = page.histogram(column["edges"], column["bars"])
            parts.append(f"<div class='card'><h3>{escaped(name)}</h3>{plot}{numbers}{said}</div>")
        else:
            card = f"<div class='card'><h3>{escaped(name)}</h3>{page.balance(column['counts'])}{said}</div>"
            (wide if len(values) > 12 else parts).append(card)
    parts += ["</div>", *wide]
    if same:
        parts.append(f"<p>The same everywhere: {escaped(', '.join(same))}.</p>")
    return [*parts, *_extremes(profile, description, pictures)]


def _values(column: Mapping[str, Any]) -> list[str]:
    """The values of a category; of a number only whether there are several."""
    if column["kind"] == "number":
        ends = [each[what] for each in column["numbers"].values() for what in ("min", "max") if each[what] is not None]
        return sorted({number(each) for each in ends})
    return sorted({value for each in column["counts"].values() for value in each})


def _extremes(profile: Mapping[str, Any], description: Description, pictures: Any) -> list[str]:
    parts = ["<h2>At the extremes</h2>"]
    if pictures is None:
        captions = [description.caption] if description.caption else []
        rows = [
            [escaped(name), number(row["value"]), escaped(row["id"]), *([_caption(row)] if captions else [])]
            for name, extremes in profile["extremes"].items()
            if len(_values(profile["columns"][name])) > 1
            for end in ("least", "most")
            for row in extremes[end][:1]
        ]
        return [
            *parts,
            page.table(["column", "value", "id", *captions], rows, ["", "n", "i", *("t" for _ in captions)]),
        ]
    for name in description.pictured:
        figures = []
        for end in ("least", "most"):
            for row in profile["extremes"][name][end]:
                caption = f"{page.short(row['value'])} {escaped(row['id'].rpartition('/')[2])}"
                figures.append(f"<figure>{_picture(pictures, row)}<figcaption>{caption}</figcaption></figure>")
        if figures:
            parts.append(f"<h3>{name}</h3><div class='pictures'>{''.join(figures)}</div>")
    return parts


def _caption(row: Mapping[str, Any]) -> str:
    return escaped(str(row["caption"] or "")[:CUT])


def markdown(verdict: Verdict, rows: str) -> str:
    """The verdict as Markdown: what GitHub's step summary shows."""
    lines = [
        f"# Data contract {verdict.contract}: {verdict.status}",
        "",
        f"{len(verdict.checks)} checks over {rows}.",
        "",
    ]
    if verdict.errors:
        lines += ["```text", *verdict.errors[:2000].splitlines(), "```", ""]
    bad = [each for outcome in ("failed", "unevaluated", "warned") for each in verdict.by(outcome)]
    if bad:
        lines += ["| outcome | check | found | must be | rows | for example |", "|---|---|---:|---|---:|---|"]
    for each in bad:
        examples = ", ".join(f"`{_plain(row['id'])}`" for row in each.examples[:3])
        count = "" if each.rows is None else f"{each.rows:,}"
        lines.append(
            f"| {each.outcome} | {_plain(each.name)} | {number(each.value)} | {_plain(each.threshold)} | {count} | {examples} |"
        )
    return "\n".join(lines) + "\n"


def _plain(value: object) -> str:
    text = " ".join(str(value).split())
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("`", "'").replace("<", "&lt;")
