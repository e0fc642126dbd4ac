"""What the report shows of classified texts: highlighted texts, classes, words."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from explain import highlights
from explain.highlights import Line, shaded
from runs import page
from runs.page import escaped

CLASSES = 24  # in the table, the worst
SPEAK = 5  # words that are named for a class
FEWEST = 2  # times that a word occurs before it is


def parts(rows: Sequence[Line]) -> list[str]:
    """HTML of the lines of explanations.jsonl."""
    return [
        "<h2>Texts</h2>",
        "<p class='small'>Red speaks for the predicted class, blue against it. The parts of a text are shaded by their exact values, "
        "words by their own.</p>",
        *(_card(row) for row in highlights.selection(rows)),
        *_classes(rows),
        *highlights.word_table("Words", (word for row in rows for word in row["words"])),
    ]


def _card(row: Line) -> str:
    strongest = highlights.strength(part["value"] for part in row["parts"])
    word = highlights.strength(entry["value"] for entry in row["words"])
    html = {"text": "", "pair": ""}
    for number, part in enumerate(row["parts"], 1):
        begin, end = part["begin"], part["begin"] + len(part["text"])
        inside = [entry for entry in row["words"] if entry["of"] == part["of"] and begin <= entry["begin"] < end]
        title = "second text" if part["of"] == "pair" else str(number)
        body = shaded(part["text"], begin, inside, word)
        html[part["of"]] += highlights.part(part["value"], strongest, title, body)
    label = "" if row["correct"] else f", is {escaped(row['label'])}"
    smallest = (
        "Whatever is hidden, the class stays the same."
        if row["smallest"] is None
        else f"Without {' and '.join(row['smallest'])} it is another class."
    )
    second = f"<p>{html['pair']}</p>" if html["pair"] else ""
    return (
        f"<div class='card' style='margin-bottom:.8rem'><h3>{highlights.outcome(row)} {escaped(row['prediction'])} "
        f"({row['confidence']:.0%}){label}</h3><p>{html['text']}</p>{second}"
        f"<p class='small'>{escaped(smallest)} {escaped(row['id'])}</p></div>"
    )


def _classes(rows: Sequence[Line]) -> list[str]:
    """How often each class is right, and the words that speak for it where it is predicted."""
    members: dict[str, list[Line]] = defaultdict(list)
    for row in rows:
        members[row["label"]].append(row)
    accuracy = {name: float(np.mean([row["correct"] for row in group])) for name, group in members.items()}
    cells = [
        [escaped(name), page.number(len(members[name])), f"{accuracy[name]:.0%}", escaped(", ".join(_speaking(rows, name)) or "-")]
        for name in sorted(members, key=lambda name: (accuracy[name], name))[:CLASSES]
    ]  # fmt: skip
    header = ["class", "of them", "right", "words that speak for it"]
    title = "Classes" if len(members) <= CLASSES else f"Classes, the worst {CLASSES} of {len(members)}"
    return [f"<h2>{title}</h2>", page.table(header, cells, ["", "n", "n", "w"])]


def _speaking(rows: Sequence[Line], name: str) -> list[str]:
    """The words with the highest mean value where a class is predicted."""
    sums: dict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    for row in rows:
        for word in row["words"] if row["prediction"] == name else ():
            sums[word["text"].lower()] += word["value"]
            counts[word["text"].lower()] += 1
    means = {word: sums[word] / counts[word] for word in counts if counts[word] >= FEWEST and sums[word] > 0}
    return sorted(means, key=lambda word: (-means[word], word))[:SPEAK]
