"""explanations.jsonl: one line for each example, for people and their scripts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from explain import measures, shapley
from explain.judge import Table

Line = dict[str, Any]


def of_questions(examples: Any, chosen: Sequence[int], explained: Sequence[Mapping[str, Any]]) -> list[Line]:
    """id, question, prediction, answers, correct, confidence, question_share, parts, words, smallest.

    Args:
        examples: the split's.
        chosen: positions.
        explained: of `explain.questions`.
    """
    return [_question(examples, at, each) for at, each in zip(chosen, explained, strict=True)]


def _question(examples: Any, at: int, each: Mapping[str, Any]) -> Line:
    context, asked, values = examples.context(at), examples.question(at), each["values"].tolist()
    parts = [context[first:last] for first, last in each["sentences"].tolist()]
    first, last = each["span"].tolist()
    sources = (asked, context)
    words = [
        {"text": sources[where][begin:end], "of": ("question", "paragraph")[where], "begin": begin, "value": value}
        for (where, begin, end), value in zip(each["word_chars"].tolist(), each["words"].tolist(), strict=True)
    ]
    answer = int(each["answer"])
    return {
        "id": examples.id(at),
        "question": asked,
        "prediction": "" if first < 0 else context[first:last],
        "span": None if first < 0 else [first, last],
        "answers": [one["text"] for one in examples.answers(at)],
        "correct": bool(each["correct"]),
        "confidence": float(each["confidence"]),
        "question_share": float(measures.share(each["values"])),
        "question_value": values[0],
        "begin": int(each["sentences"][0, 0]),
        "parts": [
            {"text": text, "value": value, "answer": number == answer}
            for number, (text, value) in enumerate(zip(parts, values[1:], strict=True))
        ],
        "words": words,
        "smallest": smallest(
            each["same"], each["coalitions"], ["the question", *(f"sentence {n + 1}" for n in range(len(parts)))]
        ),
    }


def smallest(same: Any, target: Any, names: Sequence[str]) -> list[str] | None:
    """The fewest parts without which the answer is another; of several such sets the one that the target falls most without.

    Args:
        same: bool [2**k] in the order of `shapley.coalitions`.
        target: [2**k].
        names: [k].

    Returns:
        Names; None if no set changes the answer.
    """
    here = shapley.coalitions(len(names))
    changed = np.flatnonzero(~np.asarray(same, bool))
    if not len(changed):
        return None
    best = min(changed.tolist(), key=lambda row: (int((~here[row]).sum()), float(target[row])))
    return [name for name, there in zip(names, here[best], strict=True) if not there]


def of_images(data: Any, chosen: Sequence[int], explained: Sequence[Mapping[str, Any]], table: Table) -> list[Line]:
    """id, label, prediction, correct, confidence, box_share, pointing, values, smallest.

    Args:
        data: the data module.
        chosen: positions.
        explained: of `explain.images`.
        table: of `explain.judge`.
    """
    names = [each["id"] for each in data.classes]
    found = []
    for number, (at, each) in enumerate(zip(chosen, explained, strict=True)):
        hidden = np.flatnonzero(each["hidden"]).tolist()
        found.append(
            {
                "id": data.names[at].encode("utf-8", "backslashreplace").decode(),
                "label": names[int(each["label"])],
                "prediction": names[int(each["predicted"])],
                "correct": bool(each["label"] == each["predicted"]),
                "confidence": float(each["confidence"]),
                "box_share": _number(each["area"]),
                "pointing": _number(table["pointing"][number] + float(each["area"])),
                "mass": _number(table["mass"][number] + float(each["area"])),
                "values": [round(value, 6) for value in each["values"].tolist()],
                "smallest": hidden or None,
            }
        )
    return found


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
