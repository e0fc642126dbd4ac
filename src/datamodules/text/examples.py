"""Questions, contexts and answers on disk: written once and read one at a time, in memory independent of their number."""

import json
import logging
from array import array
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from datamodules.storage import arrays
from datamodules.storage.manifest import DamagedError
from datamodules.text.question_rows import Question

logger = logging.getLogger(__name__)

FORMAT = 1  # part of the cache key: increment it when `write` writes anything else


class Answer(TypedDict):
    """A gold answer and its first character in the context."""

    text: str
    answer_start: int


def find_span(context: str, text: str, start: int) -> tuple[int, int] | None:
    """Return the characters [first, last) of an answer; None: the context does not have the answer at its offset.

    White space around the answer's text is tolerated, as is common, and not part of the span.

    Args:
        context: the paragraph.
        text: of the answer.
        start: the answer's first character.
    """
    stripped = text.strip()
    first = start + len(text) - len(text.lstrip())
    if not stripped or start < 0:
        return None
    for begin in (first, start):
        if context.startswith(stripped, begin):
            return begin, begin + len(stripped)
    return None


def write(folder: Path, questions: Iterable[Question], limit: int | None, source: str) -> None:
    """Write a split.

    Args:
        folder: a cache entry that is being built.
        questions: from `squad.read`.
        limit: maximum number of questions; None: all.
        source: the split's files, for messages.

    Raises:
        InputError: no questions, or an id that occurs twice.
    """
    ids, question_texts, contexts, titles, answers = (
        arrays.TextWriter(folder, name) for name in ("ids", "questions", "contexts", "titles", "answers")
    )
    context_of = arrays.ArrayWriter(folder / "context_of.npy", np.int32)
    spans = arrays.ArrayWriter(folder / "spans.npy", np.int32, columns=2)
    answerable = arrays.ArrayWriter(folder / "answerable.npy", np.bool_)
    hashes = array("q")
    names = ("questions", "contexts", "unanswerable", "answers", "mismatched_answers", "repeated_answers")
    counts = dict.fromkeys((*names, "questions_without_a_matching_answer"), 0)
    example = ""
    previous: tuple[str, str] | None = None
    with arrays.completing((ids, question_texts, contexts, titles, answers, context_of, spans, answerable)):
        for question in islice(questions, limit):
            if (question.context, question.title) != previous:
                previous = question.context, question.title
                contexts.append(question.context)
                titles.append(question.title)
                counts["contexts"] += 1
            answer_spans = [find_span(question.context, text, start) for text, start in question.answers]
            mismatched = answer_spans.count(None)
            if mismatched and not example:
                text, start = question.answers[answer_spans.index(None)]
                actual = question.context[max(start, 0) : max(start, 0) + max(len(text), 1)]
                mismatch = (
                    f"is not at character {start}, which has {actual!r}" if start >= 0 else "is not in the context"
                )
                example = f"{question.location}: the answer {text!r} {mismatch}"
            # A model is trained on the first answer with a correct offset.
            target = next((answer_span for answer_span in answer_spans if answer_span), None)
            ids.append(question.id)
            question_texts.append(question.question)
            answers.append(json.dumps(question.answers, ensure_ascii=False))
            context_of.append([counts["contexts"] - 1])
            spans.append([target or (-1, -1)])
            answerable.append([bool(question.answers)])
            hashes.append(hash(question.id))
            counts["questions"] += 1
            counts["answers"] += len(answer_spans)
            counts["mismatched_answers"] += mismatched
            counts["repeated_answers"] += question.repeated
            counts["unanswerable"] += not question.answers
            counts["questions_without_a_matching_answer"] += bool(question.answers) and target is None
    arrays.check_ids(arrays.TextArray(folder, "ids"), hashes, source, "questions")
    (folder / "counts.json").write_text(
        json.dumps({**counts, "example": example}, ensure_ascii=False), encoding="utf-8"
    )


class Examples:
    """The questions of a split, read from disk on access.

    Attributes:
        folder: of the cache entry.
        context_of: [N] position of each question's context in `contexts`.
        spans: [N, 2] characters [first, last) of the first answer with a correct offset; -1 without one.
        answerable: [N] whether the question has answers.
        counts: from `write`, with an "example" of a mismatched answer.
    """

    def __init__(self, folder: Path) -> None:
        """Open what `write` wrote.

        Raises:
            DamagedError: its files do not fit together.
        """
        self.folder = folder
        self._texts = {
            name: arrays.TextArray(folder, name) for name in ("ids", "questions", "contexts", "titles", "answers")
        }
        self.context_of = arrays.load(folder / "context_of.npy")
        self.spans = arrays.load(folder / "spans.npy")
        self.answerable = arrays.load(folder / "answerable.npy")
        self.counts: dict[str, Any] = json.loads((folder / "counts.json").read_text(encoding="utf-8"))
        count, contexts = len(self.context_of), len(self._texts["contexts"])
        lengths = {name: len(texts) for name, texts in self._texts.items()}
        expected = {**dict.fromkeys(lengths, count), "contexts": contexts, "titles": contexts}
        if lengths != expected or self.spans.shape != (count, 2) or self.answerable.shape != (count,):
            raise DamagedError(folder / "context_of.npy", "its number of questions is not that of the other files")
        arrays.check_range(self.context_of, 0, contexts, folder / "context_of.npy")

    def __len__(self) -> int:
        return len(self.context_of)

    def id(self, index: int) -> str:
        """Return the question's id."""
        return self._texts["ids"][index]

    def question(self, index: int) -> str:
        """Return the question's text."""
        return self._texts["questions"][index]

    def context(self, index: int) -> str:
        """Return the paragraph that the question is about."""
        return self._texts["contexts"][int(self.context_of[index])]

    def title(self, index: int) -> str:
        """Return the article's title, or ""."""
        return self._texts["titles"][int(self.context_of[index])]

    def document(self, index: int) -> str:
        """Return the name of the question's document: the article, or the paragraph where articles have no titles."""
        return self.title(index) or f"paragraph {int(self.context_of[index])}"

    def answers(self, index: int) -> list[Answer]:
        """Return all gold answers; none for an unanswerable question."""
        return [{"text": text, "answer_start": start} for text, start in json.loads(self._texts["answers"][index])]

    @property
    def contexts(self) -> arrays.TextArray:
        """All contexts, each once."""
        return self._texts["contexts"]

    def texts(self) -> Iterator[str]:
        """Yield all contexts and questions, to train a vocabulary on."""
        return chain(self._texts["contexts"], self._texts["questions"])

    def warn(self, split: str) -> None:
        """Log a warning if contexts have answers more than once, or do not have them at their offsets."""
        if self.counts.get("repeated_answers"):  # entries of earlier versions do not count them
            logger.warning(
                "%s: %d of %d answers occur more than once in their context; the first occurrence is taken (a column "
                "answer_start says which it is)",
                split,
                self.counts["repeated_answers"],
                self.counts["answers"],
            )
        if self.counts["mismatched_answers"]:
            unusable = self.counts["questions_without_a_matching_answer"]
            effect = (
                f"{unusable} question(s) without another answer are excluded from training"
                if split == "train"
                else "predictions are scored against them all the same"
            )
            logger.warning(
                "%s: %d of %d answers are not at their answer_start, or not in the context; %s. The first: %s",
                split,
                self.counts["mismatched_answers"],
                self.counts["answers"],
                effect,
                self.counts["example"],
            )
