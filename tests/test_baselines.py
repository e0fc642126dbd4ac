"""Majority and Lexical: what they answer, that metrics are true and finite, that they stay baselines."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from datamodules.samples import squad_sample
from datamodules.text import examples, squad
from datamodules.text.examples import Examples
from trainers import squad_metrics
from trainers.baselines import Lexical, MajorityAnswer, MajorityImage

BASELINES = (MajorityAnswer, Lexical)


def opened(folder: Path, files: list[str], limit: int | None = None) -> Examples:
    folder.mkdir(parents=True)
    examples.write(folder, squad.read(files), limit, "a test")
    return Examples(folder)


def questions(folder: Path, splits: dict[str, list[tuple[str, list[tuple[str, str | None]]]]]) -> SimpleNamespace:
    """Data from, for each split, contexts with their (question, answer)s; an answer of None is none."""
    found = {}
    for split, paragraphs in splits.items():
        nested = []
        for context, asked in paragraphs:
            answers = [
                [] if text is None else [{"text": text, "answer_start": context.index(text)}] for _, text in asked
            ]
            nested.append(
                {
                    "context": context,
                    "qas": [
                        {
                            "id": f"{len(nested)}-{i}",
                            "question": question,
                            "answers": each,
                            "is_impossible": not each,
                        }
                        for i, ((question, _), each) in enumerate(zip(asked, answers, strict=True))
                    ],
                }
            )
        file = folder / f"{split}.json"
        file.write_text(json.dumps({"version": "v2.0", "data": [{"title": "t", "paragraphs": nested}]}))
        found[split] = opened(folder / split, [str(file)])
    return data(found["train"], found["val"])


def data(train: Examples, val: Examples) -> SimpleNamespace:
    answerable = bool(train.answerable.all() and val.answerable.all())
    return SimpleNamespace(train_examples=train, examples=val, answerable_only=answerable)


def answered(kind: type, given: SimpleNamespace) -> tuple[dict, list[dict]]:
    baseline = kind()
    baseline.fit(given)
    metrics, rows, _ = baseline.predict(given)
    return metrics, list(rows)


TRAIN = [
    (
        "Anna met Bob in Rome. They left in 1999.",
        [("Who met Bob?", "Anna"), ("Where?", "Rome"), ("Who was met?", "Bob")],
    ),
    ("Carl met Anna in Rome.", [("Where did they meet?", "Rome")]),
]
VAL = [
    (
        "In Rome lives Anna. She bought 42 red apples from Dave Green.",
        [
            ("How many apples did she buy?", "42"),
            ("Who sold apples?", "Dave Green"),
            ("Where does Anna live?", "Rome"),
        ],
    ),
    ("Nobody here is known.", [("Who?", "Nobody")]),
    ("", []),
]


def test_majority_answers(tmp_path):
    metrics, rows = answered(MajorityAnswer, questions(tmp_path, {"train": TRAIN, "val": VAL}))
    assert [row["prediction"] for row in rows] == ["Rome", "Rome", "Rome", "Nobody"]
    assert metrics["val_exact_match"] == metrics["val_f1"] == 50.0
    assert rows[2] | {"score": 0} == {
        "id": "0-2",
        "document": rows[0]["document"],
        "question": "Where does Anna live?",
        "prediction": "Rome",
        "score": 0,
        "answers": ["Rome"],
        "exact_match": 1,
        "f1": 1.0,
        "start": 3,
        "end": 7,
    }


def test_lexical_answers(tmp_path):
    metrics, rows = answered(Lexical, questions(tmp_path, {"train": TRAIN, "val": VAL}))
    assert [row["prediction"] for row in rows] == ["42", "Dave Green", "Rome", "Nobody"]
    assert metrics["val_f1"] == 100.0


@pytest.mark.parametrize("kind", BASELINES)
def test_no_answer_is_an_answer(tmp_path, kind):
    none = [(context, [(f"Unrelated thing {i}?", None) for i in range(6)]) for context, _ in TRAIN]
    metrics, rows = answered(kind, questions(tmp_path, {"train": TRAIN + none, "val": VAL + none}))
    assert [row["prediction"] for row in rows[4:]] == [""] * 12
    assert (rows[4]["start"], rows[4]["end"], rows[4]["exact_match"]) == (None, None, 1)
    assert all(math.isfinite(row["no_answer_score"]) for row in rows)
    assert metrics["val_f1"] >= 75


def test_lexical_says_nothing_where_it_is_never_right(tmp_path):
    train = [("Anna met Bob.", [("Who met Anna?", "met"), ("Who met Carl?", None), ("Who left Bob?", None)])]
    metrics, rows = answered(Lexical, questions(tmp_path, {"train": train, "val": train}))
    assert [row["prediction"] for row in rows] == ["", "", ""]
    assert metrics["val_f1"] == pytest.approx(200 / 3)


@pytest.mark.parametrize("kind", BASELINES)
def test_empty_and_odd_contexts(tmp_path, kind):
    odd = [
        ("", [("What?", None)]),
        ("...", [("What?", "...")]),
        (" \n\t", [("What?", None)]),
        ("𝄞 é", [("?", "𝄞")]),
        ("a" * 5000, [("", "a" * 5000)]),
    ]
    for splits in ({"train": odd, "val": odd}, {"train": TRAIN, "val": odd}, {"train": odd, "val": TRAIN}):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        metrics, rows = answered(kind, questions(folder, splits))
        assert all(math.isfinite(value) for value in metrics.values())
        json.dumps(rows, allow_nan=False)


@pytest.mark.parametrize("kind", BASELINES)
def test_real_questions(shared_data, tmp_path, kind):
    train = opened(tmp_path / "train", [str(shared_data / "squad" / "train-v1.1-subset.json")], 2000)
    val = opened(tmp_path / "val", [str(shared_data / "squad" / "dev-v1.1.json")], 2000)
    metrics, rows = answered(kind, data(train, val))
    assert set(metrics) == {"val_loss", "val_exact_match", "val_f1"}
    assert [row["id"] for row in rows] == [val.id(i) for i in range(len(val))]
    scores = []
    for i, row in enumerate(rows):
        assert row["prediction"] == val.context(i)[row["start"] : row["end"]] != ""
        scores.append(squad_metrics.score(row["prediction"], row["answers"]))
        assert scores[-1] == (row["exact_match"], row["f1"])
    assert squad_metrics.totals(scores)[:2] == (metrics["val_exact_match"], metrics["val_f1"])
    # Better than nothing, and no model: uniform over 130 words would lose 4.9.
    assert (2 if kind is MajorityAnswer else 15) < metrics["val_f1"] < 35
    assert 3 < metrics["val_loss"] < 5.2


@pytest.mark.parametrize("kind", BASELINES)
def test_the_generated_questions_cannot_be_answered_by_a_baseline(tmp_path, kind):
    squad_sample.write(tmp_path / "sample", seed=0, train=2000, val=500)
    split = {
        name: opened(tmp_path / name, [str(tmp_path / "sample" / f"{name}-v1.1.json")]) for name in ("train", "dev")
    }
    metrics, _ = answered(kind, data(split["train"], split["dev"]))
    assert metrics["val_f1"] < 25


def images(train: list[int], val: list[int], classes: int) -> SimpleNamespace:
    return SimpleNamespace(
        train=SimpleNamespace(labels=np.array(train)),
        val=SimpleNamespace(labels=np.array(val)),
        names=[f"{i}.jpg" for i in range(len(val))],
        classes=[{"id": f"n{i}", "name": f"class {i}"} for i in range(classes)],
    )


def test_majority_of_images():
    given = images([0] * 3 + [1] * 5 + [2] * 2, [1, 1, 0, 6], 7)
    metrics, rows = answered(MajorityImage, given)
    prior = np.array([4, 6, 3, 1, 1, 1, 1]) / 17
    assert metrics["val_loss"] == pytest.approx(-np.log(prior[[1, 1, 0, 6]]).mean())
    assert (metrics["val_accuracy"], metrics["val_top5_accuracy"]) == (50.0, 75.0)
    assert rows[2] == {
        "id": "2.jpg",
        "label": "n0",
        "prediction": "n1",
        "probability": pytest.approx(6 / 17),
        "top5": ["n1", "n0", "n2", "n3", "n4"],
        "correct": False,
        "loss": pytest.approx(-np.log(4 / 17)),
    }
    metrics, rows = answered(MajorityImage, images([0, 1, 1], [0, 1], 2))
    assert (metrics["val_top5_accuracy"], rows[0]["top5"]) == (100.0, ["n1", "n0"])


def test_export(tmp_path):
    baseline = MajorityImage()
    baseline.fit(images([0, 1, 1], [0], 2))
    baseline.export(str(tmp_path / "model"))
    assert json.loads((tmp_path / "model" / "baseline.json").read_text()) == {
        "baseline": "Majority",
        "prior": [0.4, 0.6],
    }
