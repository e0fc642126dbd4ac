"""Pieces of a self-contained HTML page: no script, nothing from elsewhere, readable on a phone."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

COLOURS = {"train": "#3b6ea5", "val": "#c8862a", "reference": "#3b6ea5", "new": "#c8862a"}
BADGES = {
    "passed": "#2e7d4f", "warned": "#9a6a00", "failed": "#a33a3a", "inconclusive": "#a33a3a", "unevaluated": "#a33a3a",
    "drifted": "#a33a3a", "stable": "#2e7d4f",
}  # fmt: skip
_STYLE = """
*{box-sizing:border-box} body{font:15px/1.45 system-ui,sans-serif;margin:0 auto;max-width:64rem;padding:1rem;color:#222}
h1{font-size:1.35rem;line-height:1.3} h2{font-size:1.1rem;margin:2rem 0 .5rem} h3{font-size:.95rem;margin:1.2rem 0 .3rem}
table{border-collapse:collapse;font-size:13px} td,th{padding:.25rem .6rem;text-align:left;vertical-align:top}
th{border-bottom:1px solid #999;white-space:nowrap} tr:nth-child(even) td{background:#f5f5f3}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums} .scroll{overflow-x:auto;max-width:100%}
.badge{color:#fff;border-radius:.25rem;padding:.05rem .45rem;font-size:.85em;white-space:nowrap}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(17rem,1fr));gap:1rem}
.card{border:1px solid #ddd;border-radius:.3rem;padding:.5rem .6rem;min-width:0} .card td,.card th{padding:.15rem .35rem} .card h3{margin-top:0;overflow-wrap:anywhere}
.small{font-size:12.5px;color:#555} td.t{min-width:16rem;max-width:34rem;overflow-wrap:anywhere} td.i{overflow-wrap:anywhere;min-width:9rem;max-width:16rem} td.w{white-space:nowrap}
mark{background:#ffe58a} svg{width:100%;height:auto;display:block} img{image-rendering:auto;border:1px solid #ccc;background:#eee}
.pictures{display:flex;flex-wrap:wrap;gap:.5rem} figure{margin:0;width:5.6rem;font-size:11px;overflow-wrap:anywhere} figure img{width:100%}
summary{cursor:pointer} .key i{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 .8em}
"""


def escaped(value: object) -> str:
    """Text as HTML; control characters show as escapes."""
    text = str(value)
    shown = "".join(each if each.isprintable() or each in "\n\t" else ascii(each)[1:-1] for each in text)
    return html.escape(shown)


def badge(status: str) -> str:
    """A coloured word."""
    return f"<span class='badge' style='background:{BADGES.get(status, '#555')}'>{escaped(status)}</span>"


def number(value: Any) -> str:
    """A number for people: no more than four significant digits, and thousands apart."""
    if value is None:
        return "-"
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}" if abs(value) < 1e15 else f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def short(value: Any) -> str:
    """A number in three significant digits, for where there is little room."""
    if value is None or isinstance(value, int) or abs(value) >= 1000:
        return number(None if value is None else round(value))
    return f"{value:.3g}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], kinds: Sequence[str]) -> str:
    """A table of cells that are HTML; kinds are the classes of its columns ("", "n", "t", "i")."""
    head = "".join(f"<th class='{kind}'>{escaped(name)}</th>" for name, kind in zip(header, kinds, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td class='{kind}'>{cell}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def key(names: Sequence[str]) -> str:
    """Which colour is what."""
    items = "".join(f"<i style='background:{COLOURS[name]}'></i>{name}" for name in names)
    return f"<p class='key small'>{items}</p>"


def histogram(edges: Sequence[float], bars: Mapping[str, Sequence[int]]) -> str:
    """Shares by bin, one outline over the other, as SVG.

    Args:
        edges: [B + 1].
        bars: [B] counts by name; each is scaled by its own total.
    """
    shares = {name: [count / max(1, sum(counts)) for count in counts] for name, counts in bars.items() if counts}
    highest = max((max(each) for each in shares.values()), default=0.0) or 1.0
    if not edges:
        return "<p class='small'>no values</p>"
    wide, high = 260, 90
    step = wide / (len(edges) - 1)
    parts = [f"<svg viewBox='0 0 {wide} {high + 16}' role='img' aria-label='histogram'>"]
    for index, (name, each) in enumerate(shares.items()):
        points = f"0,{high} " + " ".join(
            f"{at * step:.1f},{high - high * share / highest:.1f} {(at + 1) * step:.1f},{high - high * share / highest:.1f}"
            for at, share in enumerate(each)
        )
        fill = COLOURS[name] if index == 0 else "none"
        parts.append(
            f"<polygon points='{points} {wide},{high}' fill='{fill}' fill-opacity='.35' stroke='{COLOURS[name]}' stroke-width='1.2'/>"
        )
    parts.append(f"<line x1='0' x2='{wide}' y1='{high}' y2='{high}' stroke='#888'/>")
    for x, value, anchor in ((0, edges[0], "start"), (wide, edges[-1], "end")):
        parts.append(
            f"<text x='{x}' y='{high + 13}' font-size='11' fill='#555' text-anchor='{anchor}'>{number(value)}</text>"
        )
    return "".join(parts) + "</svg>"


def balance(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Shares of values, side by side, as SVG: bars where they are few, a line of thin ones where they are many."""
    names = list(dict.fromkeys(value for each in counts.values() for value in each))
    if not names:
        return "<p class='small'>no values</p>"
    totals = {split: max(1, sum(each.values())) for split, each in counts.items()}
    highest = max(each.get(name, 0) / totals[split] for split, each in counts.items() for name in names) or 1.0
    if len(names) <= 12:
        rows = []
        for name in names:
            line = "".join(
                f"<div style='height:.5rem;background:{COLOURS[split]};width:{100 * each.get(name, 0) / totals[split] / highest:.1f}%'></div>"
                for split, each in counts.items()
            )
            said = ", ".join(f"{number(each.get(name, 0))}" for each in counts.values())
            rows.append([escaped(name), f"<div style='width:8rem'>{line}</div>", said])
        return table(["", "share", "rows"], rows, ["w", "", "n"])
    wide, high = 800, 90
    step = wide / len(names)
    parts = [f"<svg viewBox='0 0 {wide} {high}' role='img' aria-label='shares of {len(names)} values'>"]
    for row, (split, each) in enumerate(counts.items()):
        for at, name in enumerate(names):
            tall = (high - 4) * each.get(name, 0) / totals[split] / highest
            parts.append(
                f"<rect x='{at * step + row * step / 2:.2f}' y='{high - tall:.1f}' width='{step / 2.4:.2f}' height='{tall:.1f}' "
                f"fill='{COLOURS[split]}'><title>{escaped(name)}: {each.get(name, 0)} ({split})</title></rect>"
            )
    return "".join(parts) + "</svg>"


def write(path: Path, title: str, parts: Sequence[str]) -> None:
    """Writes a page, all of it or nothing."""
    head = f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{escaped(title)}</title>"
    head += f"<meta name='viewport' content='width=device-width, initial-scale=1'><style>{_STYLE}</style></head><body>"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(head + "\n".join(parts) + "</body></html>\n", encoding="utf-8")
    temporary.replace(path)
