"""Sections of the report on classified texts: highlighted texts, classes, words."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from explain import highlights
from explain.highlights import Row
from explain.report import Card, Part, Section
from reports.page import format_percent

MAX_CLASSES = 24
MAX_WORDS = 5  # of a class
MIN_COUNT = 2  # occurrences of a word of a class


def report_sections(rows: Sequence[Row]) -> list[Section]:
    """Return the sections of the rows of explanations.jsonl."""
    note = (
        "Red speaks for the predicted class, blue against it. The value of a part, at its left, is exact; words are "
        "shaded by values of their own."
    )
    cards = [_card(row) for row in highlights.select_examples(rows)]
    words = (word for row in rows for word in row["words"])
    return [Section("Texts", note, cards), _class_section(rows), *highlights.word_sections("Words", words)]


def _card(row: Row) -> Card:
    largest = highlights.largest_value(part["value"] for part in row["parts"])
    largest_word = highlights.largest_value(word["value"] for word in row["words"])
    parts = []
    for number, part in enumerate(row["parts"], 1):
        start, end = part["begin"], part["begin"] + len(part["text"])
        words = [word for word in row["words"] if word["of"] == part["of"] and start <= word["begin"] < end]
        title = "second text" if part["of"] == "pair" else f"part {number}"
        pieces = highlights.shade_words(part["text"], start, words, largest_word)
        parts.append(Part(title, part["value"], part["value"] / largest, pieces))
    label = "" if row["correct"] else f", true class {row['label']}"
    smallest = highlights.describe_smallest(row["smallest"], "class", "it is another class")
    return Card(
        f"{row['prediction']} ({format_percent(row['confidence'])}){label}",
        row["correct"],
        f"{smallest} {row['id']}",
        parts,
    )


def _class_section(rows: Sequence[Row]) -> Section:
    """The accuracy of each class, and the words that speak for it where it is predicted."""
    members: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        members[row["label"]].append(row)
    accuracy = {name: float(np.mean([row["correct"] for row in group])) for name, group in members.items()}
    table = [
        [name, len(members[name]), format_percent(accuracy[name]), ", ".join(_frequent_words(rows, name)) or None]
        for name in sorted(members, key=lambda name: (accuracy[name], name))[:MAX_CLASSES]
    ]
    note = "" if len(members) <= MAX_CLASSES else f"The {MAX_CLASSES} of {len(members)} with the lowest accuracy."
    columns = [
        ("class", "id"),
        ("examples", "number"),
        ("accuracy", "number"),
        ("words with the highest values", "text"),
    ]
    return Section("Classes", note, columns=columns, rows=table)


def _frequent_words(rows: Sequence[Row], name: str) -> list[str]:
    """The words with the highest mean value where a class is predicted."""
    sums: dict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    for row in rows:
        for word in row["words"] if row["prediction"] == name else ():
            sums[word["text"].lower()] += word["value"]
            counts[word["text"].lower()] += 1
    means = {word: sums[word] / counts[word] for word in counts if counts[word] >= MIN_COUNT and sums[word] > 0}
    return sorted(means, key=lambda word: (-means[word], word))[:MAX_WORDS]
