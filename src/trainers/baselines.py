"""Baselines without weights, which every model should exceed.

They run through the same train.py as the models, on the same data, and write the same metrics and predictions.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datamodules.text.examples import Examples
from trainers import answer_scores, squad_metrics

Result = tuple[dict[str, float], Iterable[dict[str, Any]], dict[str, Any]]

_WORD = re.compile(r"\w+(?:[.,'’-]\w+)*|[^\w\s]")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_CALIBRATION_QUESTIONS = 2000  # training questions from which the confidence of a baseline is estimated
_MAX_WORDS = 10  # of an answer of MajorityAnswer
# Words too common to be an answer, or a sign of one.
_FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be been but by did do does for from had has have he her his how in is it its of "
        "on or she that the their them they this to was were what when where which who whom whose why will "
        "with would",
    )
)


class Guess(NamedTuple):
    """An answer of a baseline: its characters in the context, and a score (the higher, the more confident)."""

    span: tuple[int, int]
    score: float


class _Baseline:
    """Base class: the arguments of every model, and the export.

    Attributes:
        learned: content of baseline.json.
    """

    NAME: ClassVar[str] = "Majority"  # in baseline.json

    def __init__(
        self, data: Any = None, optim: Any = None, pretrained: str | bool | None = None, revision: str | None = None
    ) -> None:
        """Ignore the arguments, which train.py passes to every model."""
        self.learned: dict[str, Any] = {}

    def export(self, folder: str) -> None:
        """Write what was learned as baseline.json."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        content = {"baseline": self.NAME, **self.learned}
        (path / "baseline.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


class MajorityAnswer(_Baseline):
    """Always the most common answer of training.

    More exactly: of the training answers that occur in the context, the most common one; the context's first word if none
    does. With unanswerable questions in training, "no answer" is an answer like any other.
    """

    def fit(self, data: Any) -> None:
        """Count the training answers.

        Args:
            data: a QuestionAnsweringData, set up for "fit".
        """
        texts = Counter(_first_answers(data.train_examples))
        ranks = {text: rank for rank, (text, _) in enumerate(texts.most_common())}
        calibration = _calibrate(data, self._guess(ranks))
        # "No answer" is possible everywhere: only more common answers come before it.
        calibration["threshold"] = float(ranks.get("", len(ranks)))
        self.learned = {"ranks": ranks, **calibration}

    def predict(self, data: Any) -> Result:
        """Return the metrics of the validation split, and the rows of predictions.jsonl."""
        return _answer_result(data, self._guess(self.learned["ranks"]), self.learned)

    @staticmethod
    def _guess(ranks: dict[str, int]) -> Callable[[str, str], Guess | None]:
        @lru_cache(maxsize=1)  # the questions of a context are consecutive
        def guess_for(context: str) -> Guess | None:
            words = _words(context)
            spans = (
                (start, end)
                for i, (start, _) in enumerate(words)
                for _, end in words[i : i + _MAX_WORDS]
                if context[start:end] in ranks
            )
            first_word = words[0] if words else None
            span = min(spans, key=lambda span: ranks[context[slice(*span)]], default=first_word)
            return None if span is None else Guess(span, -float(ranks.get(context[slice(*span)], len(ranks))))

        return lambda question, context: guess_for(context)


class Lexical(_Baseline):
    """The sentence with the largest overlap with the question, and in it the likeliest answer by simple rules.

    The overlap is the summed inverse document frequency of common words (Sparck Jones 1972). The answer is the sentence's
    longest run of words that are neither the question's nor function words; of numbers if the question asks how many or
    when, of capitalised words if it asks who or where.
    """

    NAME = "Lexical"

    def fit(self, data: Any) -> None:
        """Count the training contexts in which each word occurs.

        Args:
            data: a QuestionAnsweringData, set up for "fit".
        """
        contexts = data.train_examples.contexts
        counts: Counter[str] = Counter()
        for context in contexts:
            counts.update({word.lower() for word in _WORD.findall(context)})
        rarest = math.log(1 + len(contexts))
        weights = {word: rarest - math.log(1 + count) for word, count in counts.items()}
        self.learned = {"weights": weights, "unknown": rarest}
        self.learned |= _calibrate(data, self._guess)

    def predict(self, data: Any) -> Result:
        """Return the metrics of the validation split, and the rows of predictions.jsonl."""
        return _answer_result(data, self._guess, self.learned)

    def _guess(self, question: str, context: str) -> Guess | None:
        question_words = {word.lower() for word in _WORD.findall(question)}
        best, overlap = None, -1.0
        for sentence in _sentences(context):
            weight = self._weight(question_words.intersection(context[start:end].lower() for start, end in sentence))
            if weight > overlap:
                best, overlap = sentence, weight
        if best is None:
            return None
        total = self._weight(question_words)
        return Guess(_likeliest_span(context, best, question, question_words), overlap / total if total else 0.0)

    def _weight(self, words: set[str]) -> float:
        weights, unknown = self.learned["weights"], self.learned["unknown"]
        # In alphabetical order: sets have none, and the last digit decides between sentences.
        return float(sum(weights.get(word, unknown) for word in sorted(words)))


class _MajorityClass(_Baseline):
    """Always the most common class of training; probabilities are the classes' shares of training."""

    def fit(self, data: Any) -> None:
        """Count the training labels.

        Args:
            data: a data module with classes, set up for "fit".
        """
        counts = np.bincount(np.asarray(data.train.labels), minlength=len(data.classes))
        # One more of each (Laplace 1814), for classes that only validation has.
        self.learned = {"prior": ((counts + 1) / (counts.sum() + len(counts))).tolist()}

    def outputs(self, data: Any) -> Any:
        """Return the same classes for all validation examples, as `classification.ClassOutputs`."""
        from trainers import classification

        labels, prior = np.asarray(data.val.labels), np.array(self.learned["prior"])
        best = np.argsort(-prior, kind="stable")[: classification.TOP_CLASSES]
        shape = (len(labels), len(best))
        probabilities, classes = np.broadcast_to(prior[best], shape), np.broadcast_to(best, shape)
        losses = -np.log(prior)[labels]
        return classification.ClassOutputs(np.arange(len(labels)), labels, losses, probabilities, classes)


class MajorityImage(_MajorityClass):
    """Always the most common class of training, for images."""

    def predict(self, data: Any) -> Result:
        """Return the metrics of the validation split, and the rows of predictions.jsonl."""
        from trainers import image_classification

        return image_classification.image_result(self.outputs(data), data)


class MajorityText(_MajorityClass):
    """Always the most common class of training, for texts."""

    def predict(self, data: Any) -> Result:
        """Return the metrics of the validation split, and the rows of predictions.jsonl."""
        from trainers import text_classification

        return text_classification.text_result(self.outputs(data), data)


def _likeliest_span(
    context: str, sentence: list[tuple[int, int]], question: str, question_words: set[str]
) -> tuple[int, int]:
    """Return the characters of the answer in a sentence, by rule."""
    texts = [context[start:end] for start, end in sentence]
    free = [text[0].isalnum() and text.lower() not in question_words | _FUNCTION_WORDS for text in texts]
    cue = question.lower()
    rules = [free]
    if re.search(r"\bhow (?:many|much|long|old|far|large|big|often)\b|\bwhen\b|\bwhat (?:year|date|day)\b", cue):
        rules.insert(0, [ok and any(c.isdigit() for c in text) for ok, text in zip(free, texts, strict=True)])
    elif re.search(r"\b(?:who|whom|whose|where)\b", cue):
        rules.insert(0, [ok and text[0].isupper() for ok, text in zip(free, texts, strict=True)])
    for rule in rules:
        edges = [i for i, (a, b) in enumerate(pairwise([False, *rule, False])) if a != b]
        runs = list(zip(edges[::2], edges[1::2], strict=True))
        if runs:
            first, stop = max(runs, key=lambda run: run[1] - run[0])
            return sentence[first][0], sentence[stop - 1][1]
    return sentence[0][0], sentence[-1][1]


def _words(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in _WORD.finditer(text)]


def _sentences(context: str) -> Iterator[list[tuple[int, int]]]:
    """Yield the words of each sentence that has any, as characters of the context."""
    start = 0
    for end in (*(match.end() for match in _SENTENCE_END.finditer(context)), len(context)):
        words = [(start + first, start + last) for first, last in _words(context[start:end])]
        start = end
        if words:
            yield words


def _first_answers(examples: Examples) -> Iterator[str]:
    for i in range(len(examples)):
        texts = answer_scores.gold_texts(examples, i)
        yield texts[0].strip() if texts else ""


def _calibrate(data: Any, guess: Callable[[str, str], Guess | None]) -> dict[str, float]:
    """Estimate the confidence of guesses from training questions spread over the split.

    Returns:
        `edge`: how often a guess's first or last word is correct. `unanswerable`: the share of questions without an
        answer. `threshold`: no-answer score above which "no answer" is better than the guess (SQuAD 2.0).
    """
    examples = data.train_examples
    sample = np.unique(np.linspace(0, len(examples) - 1, _CALIBRATION_QUESTIONS).astype(int)).tolist()
    correct = edges = 0
    scores: list[float] = []
    no_answer_scores: list[float] = []
    for i in sample:
        context = examples.context(i)
        answer = guess(examples.question(i), context)
        text = "" if answer is None else context[slice(*answer.span)]
        scores.append(squad_metrics.score(text, answer_scores.gold_texts(examples, i), no_answer=True).f1)
        no_answer_scores.append(0.0 if answer is None else -answer.score)
        if examples.spans[i, 0] >= 0 and answer is not None:
            correct += sum(_edge_hits(_words(context), answer.span, examples.spans[i]))
            edges += 2
    answerable = [bool(examples.answerable[i]) for i in sample]
    best = squad_metrics.best_threshold(scores, answerable, [True] * len(sample), no_answer_scores)
    unanswerable = answerable.count(False)
    # If no threshold is better than always "no answer": a threshold below all scores.
    helps = best.value > 100.0 * unanswerable / len(sample)
    return {
        "edge": (correct + 1) / (edges + 2),  # Laplace again: never 0 or 1
        "unanswerable": (unanswerable + 1) / (len(sample) + 2) if unanswerable else 0.0,
        "threshold": best.threshold if helps else min(no_answer_scores) - 1,
    }


def _edge_hits(words: list[tuple[int, int]], span: tuple[int, int], gold: NDArray[Any]) -> tuple[bool, bool]:
    """Whether a span's first and last word are those of the gold answer."""
    starts, ends = np.array(words, np.int64).reshape(-1, 2).T

    def first(character: int) -> int:
        """Return the word that begins at the character, or that holds it."""
        return int(np.clip(np.searchsorted(starts, character, side="right") - 1, 0, len(starts) - 1))

    def last(character: int) -> int:
        """Return the word that ends at the character, or that holds it."""
        return int(np.clip(np.searchsorted(ends, character), 0, len(ends) - 1))

    return first(span[0]) == first(int(gold[0])), last(span[1]) == last(int(gold[1]))


def _answer_result(data: Any, guess: Callable[[str, str], Guess | None], learned: dict[str, Any]) -> Result:
    """Answer all validation questions.

    `val_loss` is the mean negative log-probability of the gold answer's first and last word, as a model's is of its
    tokens: the baseline's own word has the probability with which it was correct in training, all words of the context
    share the rest, and "no answer" has its share of training. Questions whose gold answer is not at its position in the
    context do not count.
    """
    examples: Examples = data.examples
    no_answer = not data.answerable_only
    scores, losses, rows = [], [], []
    for i in range(len(examples)):
        context = examples.context(i)
        answer = guess(examples.question(i), context)
        no_answer_score = 0.0 if answer is None else -answer.score
        skipped = answer is None or (no_answer and no_answer_score > learned["threshold"])
        start, end = (None, None) if answer is None or skipped else answer.span
        fields = {
            "start": start,
            "end": end,
            "score": 0.0 if answer is None else answer.score,
            "no_answer_score": no_answer_score if no_answer else None,
        }
        text = answer_scores.answer_text(context, fields)
        scores.append(squad_metrics.score(text, answer_scores.gold_texts(examples, i), no_answer=no_answer))
        rows.append(answer_scores.answer_row(examples, i, scores[-1], fields))
        if (loss := _loss(examples, i, answer, learned)) is not None:
            losses.append(loss)
    loss = float(np.mean(losses)) if losses else 0.0
    return {"val_loss": loss, **answer_scores.answer_metrics(scores, no_answer)}, rows, {}


def _loss(examples: Examples, i: int, guess: Guess | None, learned: dict[str, Any]) -> float | None:
    unanswerable, edge = learned["unanswerable"], learned["edge"]
    if not examples.answerable[i]:
        # Training may have had no such question.
        return -math.log(unanswerable or 1 / (_CALIBRATION_QUESTIONS + 2))
    gold = examples.spans[i]
    words = _words(examples.context(i))
    if gold[0] < 0 or guess is None or not words:
        return None
    total = 0.0
    for hit in _edge_hits(words, guess.span, gold):
        total -= math.log((1 - unanswerable) * ((1 - edge) / len(words) + edge * hit))
    return total / 2
