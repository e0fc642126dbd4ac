"""HTML of texts whose parts and words are shaded by their values: red speaks for the prediction, blue against it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from runs import page
from runs.page import escaped

SHOWN = 8  # texts
WORDS = 20
FEWEST = 3  # times that a word occurs before it counts

Line = Mapping[str, Any]


def selection(rows: Sequence[Line]) -> list[Line]:
    """The examples that are shown: up to half of them the surest wrong ones, the others spread over the right ones."""
    wrong = sorted((row for row in rows if not row["correct"]), key=lambda row: -row["confidence"])[: SHOWN // 2]
    right = [row for row in rows if row["correct"]]
    count = min(SHOWN - len(wrong), len(right))
    places: list[int] = np.linspace(0, len(right) - 1, count).astype(int).tolist() if count else []
    return [*(right[at] for at in places), *wrong]


def part(value: float, strongest: float, title: str, html: str) -> str:
    """A part of a text under its value.

    Args:
        value: of the part.
        strongest: the largest absolute value of all parts.
        title: what the part is called.
        html: its text.
    """
    style = _border(value / strongest)
    return f"<span style='{style}'><sup class='small'>{title} {value:+.1f}</sup> {html}</span>"


def strength(values: Iterable[float]) -> float:
    """The largest absolute value, 1 if there is none, or all are 0."""
    return max((abs(value) for value in values), default=0.0) or 1.0


def shaded(
    text: str, offset: int, words: Sequence[Mapping[str, Any]], strongest: float, span: Sequence[int] | None = None
) -> str:
    """A text with its words shaded.

    Args:
        text: the text.
        offset: of its first character in what `begin` and `span` count in.
        words: `begin`, `text` and `value` of each.
        strongest: value of full colour.
        span: characters that are underlined.
    """
    html, at = [], 0
    for word in sorted(words, key=lambda word: word["begin"]):
        begin = word["begin"] - offset
        html.append(_underlined(text[at:begin], offset + at, span))
        inner = _underlined(text[begin : begin + len(word["text"])], offset + begin, span)
        colour = _colour(word["value"] / strongest)
        html.append(f"<span style='background:{colour}' title='{word['value']:+.2f}'>{inner}</span>")
        at = begin + len(word["text"])
    return "".join([*html, _underlined(text[at:], offset + at, span)])


def outcome(row: Line) -> str:
    """A badge: right or wrong."""
    badge = page.badge("passed" if row["correct"] else "failed")
    return badge.replace("passed", "right").replace("failed", "wrong")


def word_table(title: str, words: Iterable[Mapping[str, Any]]) -> list[str]:
    """The words with the highest mean strength.

    Args:
        title: of the table.
        words: `text` and `value` of each word of each example.
    """
    values: dict[str, list[float]] = defaultdict(list)
    for word in words:
        values[word["text"].lower()].append(word["value"])
    known = {word: row for word, row in values.items() if len(row) >= FEWEST}
    top = sorted(known, key=lambda word: -float(np.mean(np.abs(known[word]))))[:WORDS]
    if not top:
        return []
    rows = [
        [
            escaped(word),
            page.number(len(known[word])),
            f"{np.mean(np.abs(known[word])):.3f}",
            f"{np.mean(known[word]):+.3f}",
        ]
        for word in top
    ]
    header = ["word", "times", "mean strength", "mean value"]
    return [f"<h2>{escaped(title)}</h2>", page.table(header, rows, ["", "n", "n", "n"])]


def _underlined(text: str, offset: int, span: Sequence[int] | None) -> str:
    if span is None or span[1] <= offset or span[0] >= offset + len(text):
        return escaped(text)
    first, last = max(0, span[0] - offset), max(0, span[1] - offset)
    return f"{escaped(text[:first])}<u><b>{escaped(text[first:last])}</b></u>{escaped(text[last:])}"


def _colour(value: float) -> str:
    return f"rgba({'214,39,40' if value > 0 else '31,90,180'},{min(1.0, abs(value)) * 0.75:.2f})"


def _border(value: float) -> str:
    return f"background:{_colour(value / 4)};border-bottom:3px solid {_colour(value)}"
