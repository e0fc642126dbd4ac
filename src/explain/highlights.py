"""Highlighted texts: parts and words shaded by their values; red speaks for the prediction, blue against it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from explain.report import Section
from reports.page import Piece

MAX_TEXTS = 8
MAX_WORDS = 20
MIN_COUNT = 3  # occurrences of a word in the table

Row = Mapping[str, Any]


def select_examples(rows: Sequence[Row]) -> list[Row]:
    """Return the examples of the report: up to half of them the most confident errors, and evenly spread correct ones."""
    errors = sorted((row for row in rows if not row["correct"]), key=lambda row: -row["confidence"])[: MAX_TEXTS // 2]
    correct = [row for row in rows if row["correct"]]
    count = min(MAX_TEXTS - len(errors), len(correct))
    indices: list[int] = np.linspace(0, len(correct) - 1, count).astype(int).tolist() if count else []
    return [*(correct[index] for index in indices), *errors]


def largest_value(values: Iterable[float]) -> float:
    """Return the largest absolute value; 1 if there is none, or all are 0."""
    return max((abs(value) for value in values), default=0.0) or 1.0


def shade_words(
    text: str, offset: int, words: Sequence[Row], largest: float, span: Sequence[int] | None = None
) -> list[Piece]:
    """Return a text in pieces: its words shaded, and a span underlined.

    Args:
        text: the text.
        offset: position of its first character, as `begin` and `span` count them.
        words: `begin`, `text` and `value` of each word.
        largest: value of full colour.
        span: start and end of the underlined characters.
    """
    first, last = span or (offset, offset)
    starts = {word["begin"] - offset: word for word in words}
    ends = [start + len(word["text"]) for start, word in starts.items()]
    cuts = {0, len(text), *starts, *ends, first - offset, last - offset}
    pieces, word = [], None
    for start, end in pairwise(sorted(cut for cut in cuts if 0 <= cut <= len(text))):
        word = starts.get(start, word)
        if word is not None and start >= word["begin"] - offset + len(word["text"]):
            word = None
        underline = first <= start + offset < last
        if word is None:
            pieces.append(Piece(text[start:end], underline=underline))
        else:
            value = word["value"]
            pieces.append(Piece(text[start:end], underline=underline, value=value / largest, title=f"{value:+.2f}"))
    return pieces


def describe_smallest(names: Sequence[str] | None, unchanged: str, changed: str) -> str:
    """Return a sentence on the smallest set of hidden parts that changes a prediction.

    Args:
        names: of the parts; None if no set changes it.
        unchanged: what does not change.
        changed: what happens without the parts.
    """
    if names is None:
        return f"The {unchanged} is the same whatever is hidden."
    return f"Without {' and '.join(names)}, {changed}."


def word_sections(title: str, words: Iterable[Row]) -> list[Section]:
    """Return a section with the words of the highest mean absolute value; empty if no word is frequent enough.

    Args:
        title: of the section.
        words: `text` and `value` of each word of each example.
    """
    values: dict[str, list[float]] = defaultdict(list)
    for word in words:
        values[word["text"].lower()].append(word["value"])
    frequent = {text: row for text, row in values.items() if len(row) >= MIN_COUNT}
    top = sorted(frequent, key=lambda text: -float(np.mean(np.abs(frequent[text]))))[:MAX_WORDS]
    if not top:
        return []
    rows = [
        [
            text,
            len(frequent[text]),
            f"{np.mean(np.abs(frequent[text])):.3f}",
            f"{np.mean(frequent[text]):+.3f}",
        ]
        for text in top
    ]
    columns = [("word", ""), ("count", "number"), ("mean absolute value", "number"), ("mean value", "number")]
    return [Section(title, columns=columns, rows=rows)]
