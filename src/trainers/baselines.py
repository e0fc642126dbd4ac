"""Simple baselines that learn no weights: what every model has to beat.

They go through the same train.py as the models, on the same data, and leave the same metrics and predictions.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datamodules.text.examples import Examples
from trainers import answer_scores, squad_metrics

Result = tuple[dict[str, float], Iterable[dict[str, Any]], dict[str, Any]]

_WORD = re.compile(r"\w+(?:[.,'’-]\w+)*|[^\w\s]")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
# Training questions on which a baseline finds out how far to trust itself.
_SAMPLE = 2000
# The longest answer that MajorityAnswer knows, in words.
_LONGEST = 10
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
    """An answer: its characters in the context, and what the baseline makes of it (the higher, the surer)."""

    span: tuple[int, int]
    score: float


class MajorityAnswer:
    """Always the most common answer of training.

    That is, of training's answers that occur in the context, the most common (the context's first word where none does);
    with unanswerable questions in training, "no answer" is an answer like any other.
    """

    NAME = "Majority"  # in baseline.json

    def __init__(
        self, data: Any = None, optim: Any = None, pretrained: str | bool | None = None, revision: str | None = None
    ) -> None:
        """Takes, and leaves, what train.py gives to every model."""
        self.learned: dict[str, Any] = {}

    def fit(self, data: Any) -> None:
        """Counts.

        Args:
            data: a QuestionAnsweringData, set up for "fit".
        """
        texts = Counter(_first_answers(data.train_examples))
        ranks = {text: rank for rank, (text, _) in enumerate(texts.most_common())}
        habits = _habits(data, self._guess(ranks))
        # "No answer" is possible everywhere: only what is more common comes before it.
        habits["threshold"] = float(ranks.get("", len(ranks)))
        self.learned = {"ranks": ranks, **habits}

    def predict(self, data: Any) -> Result:
        """The task's metrics over the validation split, and the rows of predictions.jsonl."""
        return _answer(data, self._guess(self.learned["ranks"]), self.learned)

    @staticmethod
    def _guess(ranks: dict[str, int]) -> Callable[[str, str], Guess | None]:
        @lru_cache(maxsize=1)  # the questions of one context follow each other
        def best(context: str) -> Guess | None:
            words = _words(context)
            spans = (
                (begin, end)
                for i, (begin, _) in enumerate(words)
                for _, end in words[i : i + _LONGEST]
                if context[begin:end] in ranks
            )
            first = words[0] if words else None
            span = min(spans, key=lambda span: ranks[context[slice(*span)]], default=first)
            return None if span is None else Guess(span, -float(ranks.get(context[slice(*span)], len(ranks))))

        return lambda question, context: best(context)

    def export(self, folder: str) -> None:
        """Writes what was learned as baseline.json."""
        _export(self, folder)


class Lexical:
    """The sentence that shares most with the question, and in it the likeliest answer by simple rules.

    Sharing is the summed inverse document frequency of common words (Sparck Jones 1972). The answer is the
    sentence's longest run of words that are neither the question's nor function words; of numbers where the
    question asks how many or when, of capitalised words where it asks who or where.
    """

    NAME = "Lexical"  # in baseline.json

    def __init__(
        self, data: Any = None, optim: Any = None, pretrained: str | None = None, revision: str | None = None
    ) -> None:
        """Takes, and leaves, what train.py gives to every model."""
        self.learned: dict[str, Any] = {}

    def fit(self, data: Any) -> None:
        """Counts in how many contexts of training each word occurs."""
        contexts = data.train_examples.contexts
        counts: Counter[str] = Counter()
        for i in range(len(contexts)):
            counts.update({word.lower() for word in _WORD.findall(contexts[i])})
        rarest = math.log(1 + len(contexts))
        weights = {word: rarest - math.log(1 + count) for word, count in counts.items()}
        self.learned = {"weights": weights, "unknown": rarest}
        self.learned |= _habits(data, self._guess)

    def predict(self, data: Any) -> Result:
        """The task's metrics over the validation split, and the rows of predictions.jsonl."""
        return _answer(data, self._guess, self.learned)

    def _guess(self, question: str, context: str) -> Guess | None:
        asked = {word.lower() for word in _WORD.findall(question)}
        weights, unknown = self.learned["weights"], self.learned["unknown"]
        best, most = None, -1.0
        for sentence in _sentences(context):
            shared = asked.intersection(context[begin:end].lower() for begin, end in sentence)
            # In the order of the alphabet: sets have none, and the last digit decides between sentences.
            weight = sum(weights.get(word, unknown) for word in sorted(shared))
            if weight > most:
                best, most = sentence, weight
        if best is None:
            return None
        total = sum(weights.get(word, unknown) for word in sorted(asked))
        return Guess(_likeliest(context, best, question, asked), most / total if total else 0.0)

    def export(self, folder: str) -> None:
        """Writes what was learned as baseline.json."""
        _export(self, folder)


# -- questions -----------------------------------------------------------------------------------------------


def _likeliest(context: str, sentence: list[tuple[int, int]], question: str, asked: set[str]) -> tuple[int, int]:
    """The characters of the answer in a sentence, by rule."""
    texts = [context[begin:end] for begin, end in sentence]
    free = [text[0].isalnum() and text.lower() not in asked | _FUNCTION_WORDS for text in texts]
    cue = question.lower()
    number = re.search(r"\bhow (?:many|much|long|old|far|large|big|often)\b|\bwhen\b|\bwhat (?:year|date|day)\b", cue)
    name = re.search(r"\b(?:who|whom|whose|where)\b", cue)
    rules: list[list[bool]] = [free]
    if number:
        rules.insert(0, [fine and any(c.isdigit() for c in text) for fine, text in zip(free, texts, strict=True)])
    elif name:
        rules.insert(0, [fine and text[0].isupper() for fine, text in zip(free, texts, strict=True)])
    for rule in rules:
        edges = [i for i, (a, b) in enumerate(pairwise([False, *rule, False])) if a != b]
        runs = list(zip(edges[::2], edges[1::2], strict=True))
        if runs:
            first, after = max(runs, key=lambda run: run[1] - run[0])
            return sentence[first][0], sentence[after - 1][1]
    return sentence[0][0], sentence[-1][1]


def _words(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in _WORD.finditer(text)]


def _sentences(context: str) -> Iterator[list[tuple[int, int]]]:
    """The words of each sentence that has any, as characters of the context."""
    begin = 0
    for end in (*(match.end() for match in _SENTENCE_END.finditer(context)), len(context)):
        words = [(begin + first, begin + last) for first, last in _words(context[begin:end])]
        begin = end
        if words:
            yield words


def _first_answers(examples: Examples) -> Iterator[str]:
    for i in range(len(examples)):
        texts = answer_scores.gold_texts(examples, i)
        yield texts[0].strip() if texts else ""


def _habits(data: Any, guess: Callable[[str, str], Guess | None]) -> dict[str, float]:
    """How far to trust guesses, from training questions spread over the split.

    Returns:
        `edge`: how often a guess's first or last word is right. `unanswerable`: the share of questions
        without an answer. `threshold`: below which score "no answer" is better than the guess (SQuAD 2.0).
    """
    examples = data.train_examples
    sample = np.unique(np.linspace(0, len(examples) - 1, _SAMPLE).astype(int)).tolist()
    right = edges = 0
    scores: list[float] = []
    doubts: list[float] = []
    for i in sample:
        context = examples.context(i)
        found = guess(examples.question(i), context)
        text = "" if found is None else context[slice(*found.span)]
        scores.append(squad_metrics.score(text, answer_scores.gold_texts(examples, i), no_answer=True).f1)
        doubts.append(0.0 if found is None else -found.score)
        if examples.spans[i, 0] >= 0 and found is not None:
            begins, ends = _edges(_words(context))
            right += int(_at(begins, found.span[0], "first") == _at(begins, examples.spans[i, 0], "first"))
            right += int(_at(ends, found.span[1], "last") == _at(ends, examples.spans[i, 1], "last"))
            edges += 2
    has = [bool(examples.answerable[i]) for i in sample]
    best = squad_metrics.best_threshold(scores, has, [True] * len(sample), doubts)
    none = has.count(False)
    # Nothing is better than saying nothing: a threshold below all. Laplace again: never certain.
    threshold = best.threshold if best.value > 100.0 * none / len(sample) else min(doubts) - 1
    return {
        "edge": (right + 1) / (edges + 2),
        "unanswerable": (none + 1) / (len(sample) + 2) if none else 0.0,
        "threshold": threshold,
    }


def _edges(words: list[tuple[int, int]]) -> tuple[NDArray[Any], NDArray[Any]]:
    begins, ends = np.array(words, np.int64).reshape(-1, 2).T
    return begins, ends


def _at(edges: NDArray[Any], character: int, which: str) -> int:
    """The word whose first (last) character this is, or that it falls in."""
    at = np.searchsorted(edges, character, side="right") - 1 if which == "first" else np.searchsorted(edges, character)
    return int(np.clip(at, 0, len(edges) - 1))


def _answer(data: Any, guess: Callable[[str, str], Guess | None], learned: dict[str, Any]) -> Result:
    """Answers all validation questions.

    `val_loss` is the mean negative log-probability of the gold answer's first and last word, as a model's
    is of its tokens: the baseline's own word has the probability with which it was right in training, all
    words of the context share the rest, and "no answer" has its share of training. Questions whose gold
    answer is not where it is said to be do not count.
    """
    examples: Examples = data.examples
    no_answer = not data.answerable_only
    scores, losses, found = [], [], []
    for i in range(len(examples)):
        context = examples.context(i)
        each = guess(examples.question(i), context)
        doubt = 0.0 if each is None else -each.score
        span = None if each is None or (no_answer and doubt > learned["threshold"]) else each.span
        text = "" if span is None else context[slice(*span)]
        scores.append(squad_metrics.score(text, answer_scores.gold_texts(examples, i), no_answer=no_answer))
        found.append((span, 0.0 if each is None else each.score, doubt if no_answer else None))
        if (loss := _loss(examples, i, each, learned)) is not None:
            losses.append(loss)
    metrics = {"val_loss": float(np.mean(losses)) if losses else 0.0, **answer_scores.answer_metrics(scores, no_answer)}
    return metrics, (answer_scores.answer_row(examples, i, span, scores[i], _fields(span, score, doubt))
                     for i, (span, score, doubt) in enumerate(found)), {}  # fmt: skip


def _fields(span: tuple[int, int] | None, score: float, doubt: float | None) -> dict[str, Any]:
    start, end = (None, None) if span is None else span
    return {"start": start, "end": end, "score": score, "no_answer_score": doubt}


def _loss(examples: Examples, i: int, guess: Guess | None, learned: dict[str, Any]) -> float | None:
    none = learned["unanswerable"]
    if not examples.answerable[i]:
        # Training may have had no such question.
        return -math.log(none or 1 / (_SAMPLE + 2))
    gold = examples.spans[i]
    words = _words(examples.context(i))
    if gold[0] < 0 or guess is None or not words:
        return None
    total = 0.0
    for edges, mine, true, which in zip(_edges(words), guess.span, gold, ("first", "last"), strict=True):
        hit = _at(edges, mine, which) == _at(edges, int(true), which)
        total -= math.log((1 - none) * ((1 - learned["edge"]) / len(words) + learned["edge"] * hit))
    return total / 2


# -- classes -------------------------------------------------------------------------------------------------


class _MajorityClass:
    """Always the most common class of training; probabilities are the classes' shares of training."""

    NAME = "Majority"  # in baseline.json

    def __init__(self, data: Any = None, optim: Any = None, pretrained: None = None, revision: None = None) -> None:
        """Takes, and leaves, what train.py gives to every model."""
        self.learned: dict[str, Any] = {}

    def fit(self, data: Any) -> None:
        """Counts.

        Args:
            data: with classes, set up for "fit".
        """
        counts = np.bincount(np.asarray(data.train.labels), minlength=len(data.classes))
        # One more of each (Laplace 1814), for a class that validation alone has.
        self.learned = {"prior": ((counts + 1) / (counts.sum() + len(counts))).tolist()}

    def outputs(self, data: Any) -> Any:
        """The same classes for all validation examples, as `classification.ClassOutputs`."""
        from trainers import classification

        labels, prior = np.asarray(data.val.labels), np.array(self.learned["prior"])
        best = np.argsort(-prior, kind="stable")[: classification.TOP_CLASSES]
        shape = (len(labels), len(best))
        probabilities, classes = np.broadcast_to(prior[best], shape), np.broadcast_to(best, shape)
        return classification.ClassOutputs(
            np.arange(len(labels)), labels, -np.log(prior)[labels], probabilities, classes
        )

    def export(self, folder: str) -> None:
        """Writes what was learned as baseline.json."""
        _export(self, folder)


class MajorityImage(_MajorityClass):
    """Always the most common class of training, for images."""

    def predict(self, data: Any) -> Result:
        """The task's metrics over the validation split, and the rows of predictions.jsonl."""
        from trainers import image_classification

        return image_classification.image_result(self.outputs(data), data)


class MajorityText(_MajorityClass):
    """Always the most common class of training, for texts."""

    def predict(self, data: Any) -> Result:
        """The task's metrics over the validation split, and the rows of predictions.jsonl."""
        from trainers import text_classification

        return text_classification.text_result(self.outputs(data), data)


def _export(baseline: Any, folder: str) -> None:
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    learned = {"baseline": baseline.NAME, **baseline.learned}
    (path / "baseline.json").write_text(json.dumps(learned, ensure_ascii=False), encoding="utf-8")
