"""The table of facts of question answering: one row for each question, read as leniently as can be."""

import functools
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from datamodules.question_answering import QuestionAnsweringData
from datamodules.text import examples, squad
from quality import text_statistics
from quality.hashes import hash64

FORMAT = 3  # part of the cache's key: raise it when the rows change

SCHEMA = pa.schema(
    [
        ("split", pa.string()),  # train or val
        ("number", pa.int64()),  # its position in the split
        ("id", pa.string()),
        ("title", pa.string()),  # of the article; null if it has none
        ("question", pa.string()),
        ("context", pa.string()),
        ("answer", pa.string()),  # the first gold answer; null if it cannot be answered
        ("answer_start", pa.int64()),  # where it says to be: characters of the context before it
        ("answers", pa.int32()),  # gold answers
        ("misplaced_answers", pa.int32()),  # those that are not where they say
        ("padded_answers", pa.int32()),  # those that are, but for white space around them
        ("cut_answers", pa.int32()),  # those that begin or end inside a word or a number
        ("answer_length", pa.int32()),  # characters, blanks at the ends not counted: only they are nothing to read
        ("answer_position", pa.float32()),  # 0: at the beginning of its context, 1: at the end
        ("question_length", pa.int32()),
        ("context_length", pa.int32()),
        ("question_words", pa.int32()),
        ("question_mark", pa.bool_()),  # it ends with one
        ("broken_characters", pa.int32()),  # replacement and control characters: text decoded wrongly
        ("question_hash", pa.int64()),  # without case, punctuation and articles: near duplicates have the same
        ("context_hash", pa.int64()),
        ("example_hash", pa.int64()),  # of question and context
        ("emails", pa.int32()),  # what looks like one, in question and context
        ("phones", pa.int32()),
        ("cards", pa.int32()),  # with a right check digit
    ]
)
ALIKE = "context_hash"  # questions of one paragraph are alike
SAID = "question"
TEXTS = ("question", "context")
SPANS = {"context": ("answer", "answer_start")}
ROWS = 2_048  # written at a time
_FAR = 2**31  # characters; an answer that says to be further away is misplaced all the same
_WORD = re.compile(r"\w+")
_CLOSING = " \t\r\n\"'”’»)]}"  # what may follow a question mark
_ARTICLES = frozenset(("a", "an", "the"))
_BROKEN = re.compile("[\ufffd\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


class _Context(NamedTuple):
    """What is the same for all questions of a paragraph."""

    hash: int
    broken: int
    personal: tuple[int, int, int]


def tables(data: QuestionAnsweringData, split: str) -> Iterator[pa.Table]:
    """The rows of a split, as many as its limit lets a model see.

    Raises:
        InputError: a file that cannot be read as questions at all.
    """
    # As if every question could have no answer: whether it may is for the contract to say.
    found = enumerate(islice(squad.read(data.files(split), version_2=True), data.limit(split)))
    while rows := [_row(split, number, question) for number, question in islice(found, ROWS)]:
        yield pa.Table.from_pylist(rows, schema=SCHEMA)


def finish(rows: Path, final: Path) -> None:
    """Nothing is known only when all rows are."""
    rows.replace(final)


def _row(split: str, number: int, question: squad.Question) -> dict[str, Any]:
    context = _context(question.context)
    placed = [_placed(question.context, text, start) for text, start in question.answers]
    text, start = question.answers[0] if question.answers else (None, None)
    words = [word for word in _WORD.findall(question.question.casefold()) if word not in _ARTICLES]
    asked = " ".join(words)
    own = text_statistics.count_personal_data(question.question)
    emails, phones, cards = (a + b for a, b in zip(context.personal, own, strict=True))
    return {
        "split": split,
        "number": number,
        "id": question.id,
        "title": question.title or None,
        "question": question.question,
        "context": question.context,
        "answer": text,
        "answer_start": None if start is None else max(-1, min(start, _FAR)),
        "answers": len(placed),
        "misplaced_answers": placed.count("misplaced"),
        "padded_answers": placed.count("padded"),
        "cut_answers": placed.count("cut"),
        "answer_length": None if text is None else len(text.strip()),
        "answer_position": None if start is None else min(1.0, max(0.0, start / max(1, len(question.context)))),
        "question_length": len(question.question.strip()),
        "context_length": len(question.context.strip()),
        "question_words": len(question.question.split()),
        "question_mark": question.question.rstrip(_CLOSING).endswith(("?", "？", "؟", "\u037e")),
        "broken_characters": context.broken + len(_BROKEN.findall(question.question)),
        "question_hash": hash64(asked),
        "context_hash": context.hash,
        "example_hash": hash64(f"{asked}\0{context.hash}"),
        "emails": emails,
        "phones": phones,
        "cards": cards,
    }


@functools.lru_cache(maxsize=4)
def _context(text: str) -> _Context:
    return _Context(
        hash64(" ".join(text.split())), len(_BROKEN.findall(text)), text_statistics.count_personal_data(text)
    )


def _placed(context: str, text: str, start: int) -> str:
    """How an answer lies in its context: "misplaced", "padded", "cut" or "" for well."""
    span = examples.find_span(context, text, start)
    if span is None:
        return "misplaced"
    first, last = span
    if (first, last) != (start, start + len(text)):
        return "padded"
    before, after = context[first - 1 : first], context[last : last + 1]
    begins_inside = before.isalnum() and context[first].isalnum()
    ends_inside = after.isalnum() and context[last - 1].isalnum()
    return "cut" if begins_inside or ends_inside else ""
