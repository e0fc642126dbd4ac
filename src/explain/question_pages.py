"""What the report shows of questions: highlighted texts, words, kinds of questions."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from explain import highlights
from explain.highlights import Line, shaded
from runs import page
from runs.page import escaped
from runs.questions import question_word


def parts(rows: Sequence[Line]) -> list[str]:
    """HTML of the lines of explanations.jsonl."""
    words = (word for row in rows for word in row["words"] if word["of"] == "question")
    return [
        "<h2>Answers</h2>",
        "<p class='small'>Red speaks for the predicted answer, blue against it; it is underlined. The question and the sentences are "
        "shaded by their exact values, the words of the question and of the sentence that says most by their own.</p>",
        *(_card(row) for row in highlights.selection(rows)),
        *_kinds(rows),
        *highlights.word_table("Words of questions", words),
    ]


def _card(row: Line) -> str:
    strongest = highlights.strength([row["question_value"], *(part["value"] for part in row["parts"])])
    word = highlights.strength(entry["value"] for entry in row["words"])
    question = shaded(row["question"], 0, [entry for entry in row["words"] if entry["of"] == "question"], word)
    text, at = [], row["begin"]
    for number, part in enumerate(row["parts"], 1):
        end = at + len(part["text"])
        inside = [entry for entry in row["words"] if entry["of"] == "paragraph" and at <= entry["begin"] < end]
        body = shaded(part["text"], at, inside, word, row["span"])
        text.append(highlights.part(part["value"], strongest, str(number), body))
        at = end
    prediction = "no answer" if row["span"] is None else row["prediction"]
    gold = "" if row["correct"] else f" It is: {escaped(row['answers'][0] if row['answers'] else 'no answer')}."
    smallest = (
        "Whatever is hidden, it answers the same."
        if row["smallest"] is None
        else f"Without {' and '.join(row['smallest'])} it answers something else."
    )
    return (
        f"<div class='card' style='margin-bottom:.8rem'><h3>{highlights.outcome(row)} {escaped(prediction)} ({row['confidence']:.0%}){gold}</h3>"
        f"<p>{highlights.part(row['question_value'], strongest, 'question', question)}</p><p>{''.join(text)}</p>"
        f"<p class='small'>The question's share is {row['question_share']:+.2f}. "
        f"{escaped(smallest)} {escaped(row['id'])}</p></div>"
    )


def _kinds(rows: Sequence[Line]) -> list[str]:
    groups: dict[str, list[Line]] = defaultdict(list)
    for row in rows:
        groups[question_word(row["question"])].append(row)
        groups["all right" if row["correct"] else "all wrong"].append(row)
    cells = []
    for name in sorted(groups, key=lambda name: (name.startswith("all"), -len(groups[name]))):
        group = groups[name]
        best = [max(range(len(row["parts"])), key=lambda number: row["parts"][number]["value"]) for row in group]
        own = np.mean([row["parts"][number]["answer"] for row, number in zip(group, best, strict=True)])
        cells.append(
            [escaped(name), page.number(len(group)), f"{np.mean([row['correct'] for row in group]):.0%}",
             f"{np.mean([row['question_share'] for row in group]):+.3f}", f"{own:.0%}"]
        )  # fmt: skip
    header = ["questions", "of them", "right", "question's share", "answer's sentence says most"]
    note = "<p class='small'>That a sentence with the predicted answer says most is nearly so by construction: it is told, not judged.</p>"
    return ["<h2>Kinds of questions</h2>", page.table(header, cells, ["", "n", "n", "n", "n"]), note]
