"""What the report shows of questions: highlighted texts, words, kinds of questions."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from explain.lines import Line
from runs import page
from runs.page import escaped
from runs.questions import asked

SHOWN = 8  # texts
WORDS = 20
FEWEST = 3  # times that a word occurs before it counts


def parts(lines: Sequence[Line]) -> list[str]:
    """HTML of `explain.lines`."""
    wrong = sorted((line for line in lines if not line["correct"]), key=lambda line: -line["confidence"])[: SHOWN // 2]
    right = [line for line in lines if line["correct"]]
    some = min(SHOWN - len(wrong), len(right))
    places: list[int] = np.linspace(0, len(right) - 1, some).astype(int).tolist() if some else []
    return [
        "<h2>Answers</h2>",
        "<p class='small'>Red speaks for the predicted answer, blue against it; it is underlined. The question and the sentences are "
        "shaded by their exact values, the words of the question and of the sentence that says most by their own.</p>",
        *(_text(line) for line in [*(right[at] for at in places), *wrong]),
        *_kinds(lines),
        *_words(lines),
    ]


def _text(line: Line) -> str:
    parts_ = line["parts"]
    strongest = max([abs(line["question_value"]), *(abs(each["value"]) for each in parts_)]) or 1.0
    word = max([abs(each["value"]) for each in line["words"]], default=0.0) or 1.0
    asked = _shaded(line["question"], 0, [each for each in line["words"] if each["of"] == "question"], word, None)
    text, at = [], 0
    begin = line["begin"]
    for number, each in enumerate(parts_, 1):
        inside = [
            w
            for w in line["words"]
            if w["of"] == "paragraph" and begin + at <= w["begin"] < begin + at + len(each["text"])
        ]
        body = _shaded(each["text"], begin + at, inside, word, line["span"])
        text.append(
            f"<span style='{_border(each['value'] / strongest)}'><sup class='small'>{number} {each['value']:+.1f}</sup> {body}</span>"
        )
        at += len(each["text"])
    outcome = (
        page.badge("passed" if line["correct"] else "failed").replace("passed", "right").replace("failed", "wrong")
    )
    said = "no answer" if line["span"] is None else line["prediction"]
    gold = "" if line["correct"] else f" It is: {escaped(line['answers'][0] if line['answers'] else 'no answer')}."
    smallest = (
        "Whatever is hidden, it answers the same."
        if line["smallest"] is None
        else f"Without {' and '.join(line['smallest'])} it answers something else."
    )
    return (
        f"<div class='card' style='margin-bottom:.8rem'><h3>{outcome} {escaped(said)} ({line['confidence']:.0%}){gold}</h3>"
        f"<p><span style='{_border(line['question_value'] / strongest)}'><sup class='small'>question {line['question_value']:+.1f}</sup> "
        f"{asked}</span></p><p>{''.join(text)}</p><p class='small'>The question's share is {line['question_share']:+.2f}. "
        f"{escaped(smallest)} {escaped(line['id'])}</p></div>"
    )


def _shaded(
    text: str, offset: int, words: Sequence[dict[str, Any]], strongest: float, span: Sequence[int] | None
) -> str:
    made, at = [], 0
    for each in sorted(words, key=lambda word: word["begin"]):
        begin = each["begin"] - offset
        made.append(_marked(text[at:begin], offset + at, span))
        inner = _marked(text[begin : begin + len(each["text"])], offset + begin, span)
        made.append(
            f"<span style='background:{_colour(each['value'] / strongest)}' title='{each['value']:+.2f}'>{inner}</span>"
        )
        at = begin + len(each["text"])
    return "".join([*made, _marked(text[at:], offset + at, span)])


def _marked(text: str, offset: int, span: Sequence[int] | None) -> str:
    if span is None or span[1] <= offset or span[0] >= offset + len(text):
        return escaped(text)
    first, last = max(0, span[0] - offset), max(0, span[1] - offset)
    return f"{escaped(text[:first])}<u><b>{escaped(text[first:last])}</b></u>{escaped(text[last:])}"


def _colour(strength: float) -> str:
    red = strength > 0
    return f"rgba({'214,39,40' if red else '31,90,180'},{min(1.0, abs(strength)) * 0.75:.2f})"


def _border(strength: float) -> str:
    return f"background:{_colour(strength / 4)};border-bottom:3px solid {_colour(strength)}"


def _kinds(lines: Sequence[Line]) -> list[str]:
    groups: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        groups[asked(line["question"])].append(line)
        groups["all right" if line["correct"] else "all wrong"].append(line)
    rows = []
    for name in sorted(groups, key=lambda each: (each.startswith("all"), -len(groups[each]))):
        of = groups[name]
        hit = [max(range(len(line["parts"])), key=lambda n: line["parts"][n]["value"]) for line in of]
        own = np.mean([line["parts"][best]["answer"] for line, best in zip(of, hit, strict=True)])
        rows.append(
            [escaped(name), page.number(len(of)), f"{np.mean([line['correct'] for line in of]):.0%}",
             f"{np.mean([line['question_share'] for line in of]):+.3f}", f"{own:.0%}"]
        )  # fmt: skip
    header = ["questions", "of them", "right", "question's share", "answer's sentence says most"]
    note = "<p class='small'>That a sentence with the predicted answer says most is nearly so by construction: it is told, not judged.</p>"
    return ["<h2>Kinds of questions</h2>", page.table(header, rows, ["", "n", "n", "n", "n"]), note]


def _words(lines: Sequence[Line]) -> list[str]:
    values: dict[str, list[float]] = defaultdict(list)
    for line in lines:
        for each in line["words"]:
            if each["of"] == "question":
                values[each["text"].lower()].append(each["value"])
    known = {word: each for word, each in values.items() if len(each) >= FEWEST}
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
    return [
        "<h2>Words of questions</h2>",
        page.table(["word", "times", "mean strength", "mean value"], rows, ["", "n", "n", "n"]),
    ]
