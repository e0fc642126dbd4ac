"""Sections of the report on questions: highlighted texts, types of questions, words."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from explain import highlights
from explain.highlights import Row
from explain.report import Card, Part, Section
from reports.page import format_percent
from runs.questions import question_word


def report_sections(rows: Sequence[Row]) -> list[Section]:
    """Return the sections of the rows of explanations.jsonl."""
    note = (
        "Red speaks for the predicted answer, which is underlined; blue against it. The values of the question and of the "
        "sentences, at their left, are exact; words of the question and of the sentence with the highest value are shaded "
        "by values of their own."
    )
    words = (word for row in rows for word in row["words"] if word["of"] == "question")
    return [
        Section("Answers", note, [_card(row) for row in highlights.select_examples(rows)]),
        _type_section(rows),
        *highlights.word_sections("Words of questions", words),
    ]


def _card(row: Row) -> Card:
    largest = highlights.largest_value([row["question_value"], *(part["value"] for part in row["parts"])])
    largest_word = highlights.largest_value(word["value"] for word in row["words"])
    words = [word for word in row["words"] if word["of"] == "question"]
    pieces = highlights.shade_words(row["question"], 0, words, largest_word)
    parts = [Part("question", row["question_value"], row["question_value"] / largest, pieces)]
    start = row["begin"]
    for number, part in enumerate(row["parts"], 1):
        end = start + len(part["text"])
        words = [word for word in row["words"] if word["of"] == "paragraph" and start <= word["begin"] < end]
        pieces = highlights.shade_words(part["text"], start, words, largest_word, row["span"])
        parts.append(Part(f"sentence {number}", part["value"], part["value"] / largest, pieces))
        start = end
    prediction = "no answer" if row["span"] is None else row["prediction"]
    label = "" if row["correct"] else f", true answer: {row['answers'][0] if row['answers'] else 'no answer'}"
    smallest = highlights.describe_smallest(row["smallest"], "answer", "the answer is another")
    return Card(
        f"{prediction} ({format_percent(row['confidence'])}){label}",
        row["correct"],
        f"Share of the question: {row['question_share']:+.2f}. {smallest} {row['id']}",
        parts,
    )


def _type_section(rows: Sequence[Row]) -> Section:
    """Accuracy and shares by the first word of the question."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[question_word(row["question"])].append(row)
        groups["all correct" if row["correct"] else "all wrong"].append(row)
    table = []
    for name in sorted(groups, key=lambda name: (name.startswith("all"), -len(groups[name]))):
        group = groups[name]
        strongest = [max(row["parts"], key=lambda part: part["value"]) for row in group]
        table.append(
            [
                name,
                len(group),
                format_percent(float(np.mean([row["correct"] for row in group]))),
                f"{np.mean([row['question_share'] for row in group]):+.3f}",
                format_percent(float(np.mean([part["answer"] for part in strongest]))),
            ]
        )
    columns = [
        ("questions", ""), ("examples", "number"), ("accuracy", "number"), ("share of the question", "number"),
        ("answer in the strongest sentence", "number"),
    ]  # fmt: skip
    note = (
        "That the sentence with the predicted answer has the highest value is nearly certain by construction: it is shown, "
        "not judged."
    )
    return Section("Types of questions", note, columns=columns, rows=table)
