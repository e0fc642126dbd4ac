"""The table of facts of question answering: one row per question. Invalid questions are rows too, if they can be read."""

import functools
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa

from datamodules.question_answering import QuestionAnsweringData
from datamodules.text import examples
from datamodules.text.question_rows import Question
from quality.hashes import hash64
from quality.text_statistics import ARTICLES, count_broken_characters, count_personal_data

FORMAT = 3  # part of the cache key: raise it when the rows change

SCHEMA = pa.schema(
    [
        ("split", pa.string()),  # train or val
        ("number", pa.int64()),  # position in the split
        ("id", pa.string()),
        ("title", pa.string()),  # of the article; null without one
        ("question", pa.string()),
        ("context", pa.string()),
        ("answer", pa.string()),  # first gold answer; null if the question is unanswerable
        ("answer_start", pa.int64()),  # its declared start, in characters of the context
        ("answers", pa.int32()),  # gold answers
        ("misplaced_answers", pa.int32()),  # gold answers that are not at their declared start
        ("padded_answers", pa.int32()),  # gold answers with surrounding white space
        ("cut_answers", pa.int32()),  # gold answers that begin or end inside a word or a number
        ("answer_length", pa.int32()),  # characters without surrounding white space
        ("answer_position", pa.float32()),  # 0: start of the context, 1: its end
        ("question_length", pa.int32()),
        ("context_length", pa.int32()),
        ("question_words", pa.int32()),
        ("question_mark", pa.bool_()),  # whether it ends with one
        ("broken_characters", pa.int32()),  # replacement and control characters: a wrong encoding
        ("question_hash", pa.int64()),  # without case, punctuation and articles: equal for near duplicates
        ("context_hash", pa.int64()),
        ("example_hash", pa.int64()),  # of question and context
        ("emails", pa.int32()),  # likely ones, in question and context
        ("phones", pa.int32()),
        ("cards", pa.int32()),  # with a valid check digit
    ]
)
GROUP = "context_hash"  # questions about one paragraph depend on each other
CAPTION = "question"
TEXTS = ("question", "context")
SPANS = {"context": ("answer", "answer_start")}
ROWS = 2_048  # of one pyarrow table
_MAX_START = 2**31  # characters; answers with a larger start are misplaced in any case
_WORD = re.compile(r"\w+")
_CLOSING = " \t\r\n\"'”’»)]}"  # characters that may follow a question mark


class _Context(NamedTuple):
    """Statistics that the questions of a paragraph share."""

    hash: int
    broken_characters: int
    personal_data: tuple[int, int, int]


def tables(data: QuestionAnsweringData, split: str) -> Iterator[pa.Table]:
    """Yield the rows of a split, up to the limit of the data module.

    Raises:
        InputError: a file cannot be read as questions.
    """
    # Read as version 2 so that unanswerable questions are rows; whether they are allowed is decided by the contract.
    questions = enumerate(islice(data.questions(split, version_2=True), data.limit(split)))
    while rows := [_question_row(split, number, question) for number, question in islice(questions, ROWS)]:
        yield pa.Table.from_pylist(rows, schema=SCHEMA)


def _question_row(split: str, number: int, question: Question) -> dict[str, Any]:
    context = _context_statistics(question.context)
    errors = [_placement_error(question.context, text, start) for text, start in question.answers]
    text, start = question.answers[0] if question.answers else (None, None)
    words = [word for word in _WORD.findall(question.question.casefold()) if word not in ARTICLES]
    normalised = " ".join(words)
    question_data = count_personal_data(question.question)
    emails, phones, cards = (sum(pair) for pair in zip(context.personal_data, question_data, strict=True))
    return {
        "split": split,
        "number": number,
        "id": question.id,
        "title": question.title or None,
        "question": question.question,
        "context": question.context,
        "answer": text,
        "answer_start": None if start is None else max(-1, min(start, _MAX_START)),
        "answers": len(errors),
        "misplaced_answers": errors.count("misplaced"),
        "padded_answers": errors.count("padded"),
        "cut_answers": errors.count("cut"),
        "answer_length": None if text is None else len(text.strip()),
        "answer_position": None if start is None else min(1.0, max(0.0, start / max(1, len(question.context)))),
        "question_length": len(question.question.strip()),
        "context_length": len(question.context.strip()),
        "question_words": len(question.question.split()),
        "question_mark": question.question.rstrip(_CLOSING).endswith(("?", "？", "؟", "\u037e")),
        "broken_characters": context.broken_characters + count_broken_characters(question.question),
        "question_hash": hash64(normalised),
        "context_hash": context.hash,
        "example_hash": hash64(f"{normalised}\0{context.hash}"),
        "emails": emails,
        "phones": phones,
        "cards": cards,
    }


@functools.lru_cache(maxsize=4)
def _context_statistics(text: str) -> _Context:
    return _Context(hash64(" ".join(text.split())), count_broken_characters(text), count_personal_data(text))


def _placement_error(context: str, text: str, start: int) -> str:
    """Return "misplaced", "padded" or "cut" for an answer that is not a span of whole words at its start, else ""."""
    span = examples.find_span(context, text, start)
    if span is None:
        return "misplaced"
    first, last = span
    if (first, last) != (start, start + len(text)):
        return "padded"
    cut_start = context[first - 1 : first].isalnum() and context[first].isalnum()
    cut_end = context[last : last + 1].isalnum() and context[last - 1].isalnum()
    return "cut" if cut_start or cut_end else ""
