"""Exact match and F1, against values worked out by hand from the definition, and over the real dev set."""

import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.squad_metrics import Score, best_threshold, normalise, score, totals

TEXTS = st.lists(st.sampled_from(["a", "The", "an", "cat", "Cat.", "dog", "!", "...", "é", "𝄞", " ", "\t"])).map(
    " ".join
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Cat,\tsat\n", "cat sat"),
        ("A an the", ""),
        ("the-atre", "theatre"),  # punctuation goes before articles are looked for
        ("Athens", "athens"),
        ("a.b", "ab"),
        ("U.S.A.", "usa"),
        ("É’s", "é’s"),  # only ASCII punctuation goes
        ("x a\xa0b", "x b"),
        ("the𝄞", "𝄞"),  # a symbol is no letter: the article before it ends there
        ("", ""),
    ],
)
def test_normalise(text, expected):
    assert normalise(text) == expected


@pytest.mark.parametrize(
    ("prediction", "answers", "first", "second"),
    [
        ("the cat", ["cat"], (1, 1), (1, 1)),
        ("black cat", ["cat"], (0, 2 / 3), (0, 2 / 3)),
        ("black cat", ["cat", "Black!"], (0, 2 / 3), (0, 2 / 3)),
        ("black cat", ["dog", "cat black"], (0, 1), (0, 1)),  # a bag of words
        ("cat cat cat", ["cat cat dog"], (0, 2 / 3), (0, 2 / 3)),  # that counts
        ("dog", ["cat"], (0, 0), (0, 0)),
        ("", ["cat"], (0, 0), (0, 0)),
        ("the", ["a"], (1, 0), (1, 1)),  # no words left: the two versions differ
        ("the", ["cat", "a"], (1, 0), (0, 0)),  # 2.0 leaves out gold answers without words
        ("", ["a"], (1, 0), (1, 1)),
    ],
)
def test_scores_by_hand(prediction, answers, first, second):
    assert score(prediction, answers) == first
    assert score(prediction, answers, no_answer=True) == second


def test_unanswerable_questions():
    assert score("", [], no_answer=True) == (1, 1)
    assert score("the", [], no_answer=True) == (1, 1)
    assert score("cat", [], no_answer=True) == (0, 0)
    with pytest.raises(ValueError, match="no_answer=True"):
        score("cat", [])


@given(TEXTS, st.lists(TEXTS, min_size=1), st.booleans())
def test_scores_are_what_the_definition_says(prediction, answers, no_answer):
    found = score(prediction, answers, no_answer=no_answer)
    golds = [normalise(answer).split() for answer in answers]
    if no_answer:
        golds = [gold for gold in golds if gold] or [[]]
    said = normalise(prediction).split()
    assert found.exact_match == (said in golds)
    best = Fraction(0)
    for gold in golds:
        common = sum(min(said.count(word), gold.count(word)) for word in set(said))
        if common:
            best = max(best, Fraction(2 * common, len(said) + len(gold)))
        elif no_answer and said == gold:
            best = Fraction(1)
    assert found.f1 == pytest.approx(float(best), abs=1e-15)
    assert found == score(prediction, answers[::-1], no_answer=no_answer)
    assert 0 <= found.f1 <= 1


def test_totals_add_in_order_as_the_scripts_do():
    # A third three times is one, if one adds to the left; the mean is then exact.
    scores = [Score(1, 1 / 3), Score(0, 1 / 3), Score(0, 1 / 3)]
    assert totals(scores) == (100 / 3, 100 / 3, 3)
    tenths = [Score(0, 0.1)] * 10
    assert totals(tenths).f1 == 9.999999999999998  # `+=` leaves 0.9999999999999999
    assert totals(tenths, no_answer=True).f1 == 100.0 * sum([0.1] * 10) / 10


def test_best_threshold():
    # Answering the two least doubtful questions wins 1 + 0.5; the third loses the point for saying nothing.
    found = best_threshold([1, 0.5, 0, 1], [True, True, False, True], [True] * 4, [-3.0, -2.0, 0.5, 9.0])
    assert found == (62.5, -2.0)
    # An unanswerable question that got no text loses nothing.
    assert best_threshold([0, 1], [False, True], [False, True], [-1.0, 1.0]) == (100.0, 1.0)
    # Best to leave all without an answer: the script's 0.0.
    assert best_threshold([0, 0], [False, True], [True, True], [1.0, 2.0]) == (50.0, 0.0)


def test_gold_answers_score_100_over_all_of_dev(shared_data: Path):
    articles = json.loads((shared_data / "squad" / "dev-v1.1.json").read_text(encoding="utf-8"))["data"]
    golds = [
        [answer["text"] for answer in qa["answers"]]
        for article in articles
        for paragraph in article["paragraphs"]
        for qa in paragraph["qas"]
    ]
    assert len(golds) == 10_570
    for no_answer in (False, True):
        scores = [score(answers[0], answers, no_answer=no_answer) for answers in golds]
        assert totals(scores, no_answer=no_answer) == (100.0, 100.0, 10_570)
    # What the official 1.1 script prints for the first three words of each question's first answer.
    said = [" ".join(answers[0].split()[:3]) for answers in golds]
    found = totals([score(text, answers) for text, answers in zip(said, golds, strict=True)])
    assert found == (76.98202459791864, 92.72625158558867, 10_570)
