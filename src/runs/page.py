"""Pieces of a self-contained HTML page: nothing from elsewhere, light or dark, readable on a phone and on paper."""

import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from config.files import atomic_write
from config.numbers import format_number

COLOURS = {"train": "#3b6ea5", "val": "#c8862a", "reference": "#3b6ea5", "new": "#c8862a"}
GOOD, FAIR, BAD = "#2e7d4f", "#9a6a00", "#a33a3a"
BADGES = {
    "passed": GOOD, "warned": FAIR, "failed": BAD, "inconclusive": BAD, "unevaluated": BAD, "drifted": BAD, "stable": GOOD,
    "finished": GOOD, "running": "#3b6ea5", "interrupted": FAIR, "diverged": BAD, "stopped": FAIR, "damaged": BAD, "incomplete": FAIR,
}  # fmt: skip
# Colours follow the reader's system, light or dark; paper is light.
_STYLE = """
:root{color-scheme:light dark} *{box-sizing:border-box}
body{font:15px/1.45 system-ui,sans-serif;margin:0 auto;max-width:64rem;padding:1rem;color:light-dark(#222,#ddd);background:light-dark(#fff,#16181b)}
h1{font-size:1.35rem;line-height:1.3} h2{font-size:1.1rem;margin:2rem 0 .5rem} h3{font-size:.95rem;margin:1.2rem 0 .3rem}
a{color:light-dark(#2a5d94,#8ab4e0)} pre{white-space:pre-wrap;overflow-wrap:anywhere;background:light-dark(#f5f5f3,#22252a);padding:.6rem;font-size:12.5px}
code{overflow-wrap:anywhere;font-size:.92em}
table{border-collapse:collapse;font-size:13px} td,th{padding:.25rem .6rem;text-align:left;vertical-align:top}
th{border-bottom:1px solid #999;white-space:nowrap} tr:nth-child(even) td{background:light-dark(#f5f5f3,#1e2125)}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums} .scroll{overflow-x:auto;max-width:100%}
th[data-at]{cursor:pointer} th[aria-sort]::after{content:" ▾"} th[aria-sort=ascending]::after{content:" ▴"}
.badge{color:#fff;border-radius:.25rem;padding:.05rem .45rem;font-size:.85em;white-space:nowrap}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(17rem,1fr));gap:1rem}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(22rem,100%),1fr));gap:1.5rem}
.card{border:1px solid light-dark(#ddd,#3a3d42);border-radius:.3rem;padding:.5rem .6rem;min-width:0} .card td,.card th{padding:.15rem .35rem} .card h3{margin-top:0;overflow-wrap:anywhere}
.small{font-size:12.5px;color:light-dark(#555,#aaa)} td.t{min-width:16rem;max-width:34rem;overflow-wrap:anywhere} td.i{overflow-wrap:anywhere;min-width:7rem;max-width:16rem} td.w{white-space:nowrap}
mark{background:light-dark(#ffe58a,#6b5a12);color:inherit} svg{width:100%;height:auto;display:block} svg text{font-size:11px;fill:light-dark(#555,#aaa)} .grid-line{stroke:light-dark(#ccc,#4a4d52)}
img{image-rendering:auto;border:1px solid light-dark(#ccc,#444);background:light-dark(#eee,#333)}
.pictures{display:flex;flex-wrap:wrap;gap:.5rem} figure{margin:0;width:5.6rem;font-size:11px;overflow-wrap:anywhere} figure img{width:100%}
summary{cursor:pointer} .key i{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 .8em} .bar{display:block;height:.6rem;background:#3b6ea5;border-radius:1px}
.found .scroll{max-height:36rem;overflow-y:auto} .found th{position:sticky;top:0;background:light-dark(#fff,#16181b)}
.find{margin:.4rem 0} .find input,.find select{font:inherit;font-size:13px;max-width:14rem}
@media print{:root{color-scheme:light} .find{display:none} .found .scroll{max-height:none} tr,.card,figure{break-inside:avoid} body{max-width:none} th{white-space:normal} td,th{padding:3px 6px}}
"""
# Tables that have rows to find: sorted by a click on a column, filtered by text and by slice.
SCRIPT = """
for (const box of document.querySelectorAll('.found')) {
  const body = box.querySelector('tbody'), rows = [...body.rows], heads = [...box.querySelectorAll('th')];
  const value = (row, at) => {
    const cell = row.cells[at], own = cell.querySelector('[data-v]'), text = (own ? own.dataset.v : cell.textContent).trim();
    const number = parseFloat(text.replace(/,/g, ''));
    return /^[-+]?[\\d.]/.test(text) && !isNaN(number) ? number : text;
  };
  const sort = (head, at) => {
    const up = head.getAttribute('aria-sort') === 'descending';
    heads.forEach(each => each.removeAttribute('aria-sort'));
    head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
    rows.sort((a, b) => {
      const x = value(a, at), y = value(b, at), mixed = typeof x !== typeof y;
      const less = mixed ? (typeof x === 'number' ? 1 : -1) : x < y ? -1 : x > y ? 1 : 0;
      return up ? less : -less;
    });
    body.append(...rows);
  };
  heads.forEach((head, at) => {
    if (!head.textContent) return;
    head.dataset.at = at; head.tabIndex = 0;
    head.onclick = () => sort(head, at);
    head.onkeydown = event => { if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); sort(head, at); } };
  });
  const text = box.querySelector('input'), slice = box.querySelector('select'), said = box.querySelector('output');
  const filter = () => {
    let shown = 0;
    for (const row of rows) {
      const fits = (!slice || !slice.value || row.dataset.slice === slice.value) && row.textContent.toLowerCase().includes(text.value.toLowerCase());
      row.hidden = !fits; shown += fits;
    }
    said.textContent = shown === rows.length ? '' : `${shown} of ${rows.length}`;
  };
  text.oninput = filter; if (slice) slice.onchange = filter;
}
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
    return "-" if value is None else format_number(value, 4, grouped=True)


def short(value: Any) -> str:
    """A number in three significant digits, for where there is little room."""
    return "-" if value is None else format_number(value, 3, grouped=True)


def exact(value: Any) -> str:
    """A metric in five significant digits."""
    return format_number(value, 5, grouped=True)


def bar(share: float) -> str:
    """A share of a whole, as a bar."""
    return f"<span class='bar' style='width:{8 * min(1.0, max(0.0, share)):.2f}rem'></span>"


def address(path: str) -> str:
    """A relative path as an address."""
    return quote(os.fsencode(path.replace(os.sep, "/")))


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], kinds: Sequence[str], slices: Sequence[str] | None = None
) -> str:
    """A table.

    Args:
        header: titles.
        rows: cells that are HTML.
        kinds: the classes of its columns ("", "n", "t", "i", "w").
        slices: what each row belongs to: the table can be sorted, and filtered by these and by text. Needs `SCRIPT`.
    """
    of = slices if slices is not None else [""] * len(rows)
    marks = [f" data-slice='{escaped(name)}'" if slices is not None else "" for name in of]
    head = "".join(f"<th class='{kind}'>{escaped(name)}</th>" for name, kind in zip(header, kinds, strict=True))
    body = "".join(
        f"<tr{mark}>"
        + "".join(f"<td class='{kind}'>{cell}</td>" for cell, kind in zip(row, kinds, strict=True))
        + "</tr>"
        for row, mark in zip(rows, marks, strict=True)
    )
    whole = f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    if slices is None:
        return whole
    names = sorted(set(slices))
    options = "".join(f"<option value='{escaped(name)}'>{escaped(name)}</option>" for name in names)
    choose = f" <select aria-label='only'><option value=''>all</option>{options}</select>" if len(names) > 1 else ""
    find = f"<p class='find'><input type='search' placeholder='find' aria-label='find'>{choose} <output class='small'></output></p>"
    return f"<div class='found'>{find}{whole}</div>"


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
    parts.append(f"<line x1='0' x2='{wide}' y1='{high}' y2='{high}' class='grid-line'/>")
    for x, value, anchor in ((0, edges[0], "start"), (wide, edges[-1], "end")):
        parts.append(f"<text x='{x}' y='{high + 13}' text-anchor='{anchor}'>{number(value)}</text>")
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


def write(path: Path, title: str, parts: Sequence[str], script: str = "") -> None:
    """Writes a page, all of it or nothing."""
    head = f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{escaped(title)}</title>"
    head += f"<meta name='viewport' content='width=device-width, initial-scale=1'><style>{_STYLE}</style></head><body>"
    end = f"<script>{script}</script></body></html>\n" if script else "</body></html>\n"
    with atomic_write(path) as file:
        file.write((head + "\n".join(parts) + end).encode(errors="backslashreplace"))
