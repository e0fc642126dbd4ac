"""Questions, contexts and answers on disk: written once, read one at a time, so that memory does not grow
with them."""

import json
import logging
from array import array
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from config.errors import InputError
from datamodules.storage import arrays
from datamodules.text.squad import Question

logger = logging.getLogger(__name__)

FORMAT = 1  # part of the cache key: raise it when what `write` writes changes


class Answer(TypedDict):
    """A gold answer and its first character in the context."""

    text: str
    answer_start: int


def find_span(context: str, text: str, start: int) -> tuple[int, int] | None:
    """The characters [first, last) of an answer, or None if they are not what the answer says.

    White space around the answer's text is forgiven, as is common, and left out of the span.
    """
    stripped = text.strip()
    first = start + len(text) - len(text.lstrip())
    if not stripped or start < 0:
        return None
    for begin in (first, start):
        if context.startswith(stripped, begin):
            return begin, begin + len(stripped)
    return None


def write(folder: Path, questions: Iterable[Question], limit: int | None, what: str) -> None:
    """Writes a split.

    Args:
        folder: a cache entry that is being built.
        questions: as `squad.read` yields them.
        limit: the first so many; None for all.
        what: the split's files, for messages.

    Raises:
        InputError: no questions, or an id that occurs twice.
    """
    ids, asked, contexts, titles, answers = (
        arrays.TextWriter(folder, name) for name in ("ids", "questions", "contexts", "titles", "answers")
    )
    context_of = arrays.ArrayWriter(folder / "context_of.npy", np.int32)
    spans = arrays.ArrayWriter(folder / "spans.npy", np.int32, columns=2)
    answerable = arrays.ArrayWriter(folder / "answerable.npy", np.bool_)
    hashes = array("q")
    counts = {
        "questions": 0,
        "contexts": 0,
        "unanswerable": 0,
        "answers": 0,
        "mismatched_answers": 0,
        "questions_without_a_matching_answer": 0,
    }
    example = ""
    previous: tuple[str, str] | None = None
    with arrays.Writers((ids, asked, contexts, titles, answers, context_of, spans, answerable)):
        for question in islice(questions, limit):
            if (question.context, question.title) != previous:
                previous = question.context, question.title
                contexts.append(question.context)
                titles.append(question.title)
                counts["contexts"] += 1
            found = [find_span(question.context, text, start) for text, start in question.answers]
            wrong = found.count(None)
            if wrong and not example:
                text, start = question.answers[found.index(None)]
                there = question.context[max(start, 0) : max(start, 0) + max(len(text), 1)]
                example = f"{question.place}: the answer {text!r} is not at character {start}, where {there!r} is"
            # The first answer is what a model is trained on; the next best where its offset is wrong.
            target = next((each for each in found if each), None)
            ids.append(question.id)
            asked.append(question.question)
            answers.append(json.dumps(question.answers, ensure_ascii=False))
            context_of.append([counts["contexts"] - 1])
            spans.append([target or (-1, -1)])
            answerable.append([bool(question.answers)])
            hashes.append(hash(question.id))
            counts["questions"] += 1
            counts["answers"] += len(found)
            counts["mismatched_answers"] += wrong
            counts["unanswerable"] += not question.answers
            counts["questions_without_a_matching_answer"] += bool(question.answers) and target is None
    if not counts["questions"]:
        raise InputError(f"{what}: there are no questions")
    duplicate = arrays.duplicate(np.frombuffer(hashes, np.int64), arrays.Texts(folder, "ids"))
    if duplicate:
        name, first, second = duplicate
        raise InputError(
            f"{what}: the id {name!r} occurs twice, at questions {first + 1} and {second + 1}; ids must be unique in a split"
        )
    (folder / "counts.json").write_text(
        json.dumps({**counts, "example": example}, ensure_ascii=False), encoding="utf-8"
    )


class Examples:
    """The questions of a split, read from disk as they are asked for."""

    def __init__(self, folder: Path) -> None:
        """Opens what `write` wrote."""
        self.folder = folder
        self._texts = {
            name: arrays.Texts(folder, name) for name in ("ids", "questions", "contexts", "titles", "answers")
        }
        self.context_of = arrays.load(folder / "context_of.npy")
        self.spans = arrays.load(folder / "spans.npy")
        self.answerable = arrays.load(folder / "answerable.npy")
        self.counts: dict[str, Any] = json.loads((folder / "counts.json").read_text(encoding="utf-8"))

    def __len__(self) -> int:
        return len(self.context_of)

    def id(self, index: int) -> str:
        """The question's id."""
        return self._texts["ids"][index]

    def question(self, index: int) -> str:
        """What is asked."""
        return self._texts["questions"][index]

    def context(self, index: int) -> str:
        """The paragraph the question is about."""
        return self._texts["contexts"][int(self.context_of[index])]

    def title(self, index: int) -> str:
        """The article's title, or ""."""
        return self._texts["titles"][int(self.context_of[index])]

    def document(self, index: int) -> str:
        """What a question is about: the article, or the paragraph where articles have no titles."""
        return self.title(index) or f"paragraph {int(self.context_of[index])}"

    def answers(self, index: int) -> list[Answer]:
        """All gold answers; none for an unanswerable question."""
        return [{"text": text, "answer_start": start} for text, start in json.loads(self._texts["answers"][index])]

    @property
    def contexts(self) -> arrays.Texts:
        """Each context once; `context_of[i]` is the one of question i."""
        return self._texts["contexts"]

    def texts(self) -> Iterator[str]:
        """All contexts and questions, to learn a vocabulary from."""
        for texts in (self._texts["contexts"], self._texts["questions"]):
            for index in range(len(texts)):
                yield texts[index]

    def warn(self, split: str) -> None:
        """Says which answers are not where they are said to be, if any."""
        if self.counts["mismatched_answers"]:
            unusable = self.counts["questions_without_a_matching_answer"]
            effect = (
                f"{unusable} question(s) without another answer are left out of training"
                if split == "train"
                else "they are still what predictions are scored against"
            )
            logger.warning(
                "%s: %d of %d answers are not where they are said to be; %s. The first: %s",
                split,
                self.counts["mismatched_answers"],
                self.counts["answers"],
                effect,
                self.counts["example"],
            )
