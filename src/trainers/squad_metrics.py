"""Exact match and F1 as SQuAD 1.1 and 2.0 define them, equal to the official scripts to the last digit.

Sources: Rajpurkar et al. 2016 (https://arxiv.org/abs/1606.05250, section 6.1) and 2018
(https://arxiv.org/abs/1806.03822, section 5), and the scripts published with them. The two versions differ for texts
without words after normalisation, and in the order of additions, so `no_answer` selects the version.
"""

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(?:an?|the)\b")


class Score(NamedTuple):
    """Score of an answer, 0 to 1: the best over the gold answers."""

    exact_match: int
    # An int where the definition has one: how Python adds ints to floats decides the last digit of the total.
    f1: float


class Totals(NamedTuple):
    """Exact match and F1 over several questions, 0 to 100, and their number."""

    exact_match: float
    f1: float
    total: int


class Threshold(NamedTuple):
    """The best mean score that a threshold on the no-answer score can give, 0 to 100, and that threshold."""

    value: float
    threshold: float


def normalise(text: str) -> str:
    """Lower-case a text, and remove ASCII punctuation, English articles and repeated white space."""
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def score(prediction: str, answers: Iterable[str], *, no_answer: bool = False) -> Score:
    """Score a prediction against all gold answers.

    Args:
        prediction: text of the answer; empty for no answer.
        answers: gold texts; at least one without `no_answer`.
        no_answer: score as SQuAD 2.0 does: an empty prediction is correct for a question without gold answers, gold
            answers that are empty after normalisation do not count, and two texts without words agree.

    Returns:
        The best exact match and the best F1, each over the gold answers by itself.

    Raises:
        ValueError: there is no gold answer and `no_answer` is off.
    """
    text = normalise(prediction)
    gold_texts = set(map(normalise, answers))
    if no_answer:
        gold_texts = gold_texts - {""} or {""}
    elif not gold_texts:
        raise ValueError("a question without gold answers can only be scored as SQuAD 2.0 (no_answer=True)")
    if text in gold_texts:
        return Score(1, 1.0 if text else int(no_answer))
    words = text.split()
    return Score(0, max(_overlap(words, gold.split()) for gold in gold_texts))


def totals(scores: Sequence[Score], *, no_answer: bool = False) -> Totals:
    """Return the mean scores times 100, summed in the order of the data set.

    Args:
        scores: one score per question, at least one.
        no_answer: as in `score`. SQuAD 2.0's script adds with `sum`, which rounds better than 1.1's `+=` from Python
            3.12 on; each is reproduced on each Python.
    """
    exact_match = sum(score.exact_match for score in scores)
    f1: float = 0
    if no_answer:
        f1 = sum(score.f1 for score in scores)
    else:
        for score in scores:
            f1 += score.f1
    return Totals(100.0 * exact_match / len(scores), 100.0 * f1 / len(scores), len(scores))


def best_threshold(
    scores: Sequence[float],
    answerable: Sequence[bool],
    answered: Sequence[bool],
    no_answer_scores: Sequence[float],
) -> Threshold:
    """Find the no-answer score above which a question is best left without an answer (SQuAD 2.0).

    Args:
        scores: exact match or F1 of each question's text, before any threshold, 0 to 1.
        answerable: whether the question has a gold answer.
        answered: whether that text is not empty.
        no_answer_scores: the higher, the less likely an answer.

    Returns:
        The best value and its threshold. As in the official script the threshold is 0.0 if leaving every question
        without an answer is best, ties between no-answer scores are processed one by one, and the first best wins.
    """
    current: float = sum(not value for value in answerable)
    best, threshold = current, 0.0
    # Raising the threshold past a question answers it: its score is won, or a correct "no answer" is lost.
    for i in sorted(range(len(scores)), key=no_answer_scores.__getitem__):
        current += scores[i] if answerable[i] else -int(answered[i])
        if current > best:
            best, threshold = current, no_answer_scores[i]
    return Threshold(100.0 * best / len(scores), threshold)


def _overlap(words: list[str], gold: list[str]) -> float:
    """Return the F1 of two bags of words that are not both empty."""
    common = (Counter(words) & Counter(gold)).total()
    if common == 0:
        return 0
    precision, recall = common / len(words), common / len(gold)
    return 2 * precision * recall / (precision + recall)
