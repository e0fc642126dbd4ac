"""From candidates to metrics and rows of predictions.jsonl, for SQuAD 1.1 and 2.0."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from benchmarks.spans import pad
from tests.test_spans import top

from config.errors import InputError
from datamodules.text import examples, squad
from datamodules.text.examples import Examples
from trainers import answer_scores, spans

CONTEXTS = ["Anna met Bob in Rome.", "Carl 𝄞 stayed home."]
ASKED = [
    (0, "Who met Bob?", "Anna"),
    (0, "Where?", "Rome"),
    (1, "Who stayed?", "Carl"),
    (1, "What is it?", None),
]


class Windows(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.example)


def prepared(folder: Path, count: int) -> SimpleNamespace:
    """The first `count` questions, each in two windows: two words of the context, and all of them."""
    nested = [
        {
            "context": context,
            "qas": [
                {
                    "id": f"q{i}",
                    "question": question,
                    "is_impossible": text is None,
                    "answers": [] if text is None else [{"text": text, "answer_start": context.index(text)}],
                }
                for i, (of, question, text) in enumerate(ASKED[:count])
                if of == c
            ],
        }
        for c, context in enumerate(CONTEXTS)
    ]
    (folder / "q.json").write_text(json.dumps({"data": [{"title": "", "paragraphs": nested}]}))
    examples.write(folder, squad.read([str(folder / "q.json")]), None, "a test")
    chars, example = [], []
    for i, (of, _, _) in enumerate(ASKED[:count]):
        words = [match.span() for match in re.finditer(r"\w+", CONTEXTS[of])]
        for part in (words[:2], words):
            chars.append(np.array([(-1, -1), *part], np.int32))
            example.append(i)
    offsets = np.cumsum([0, *map(len, chars)])
    windows = Windows(chars=np.concatenate(chars), offsets=offsets, example=np.array(example))
    return SimpleNamespace(examples=Examples(folder), windows=windows, answerable_only=count < 4)


def scored(data: SimpleNamespace, said: list[str | None], windows=None, **options) -> tuple[dict, list[dict]]:
    """Logits that say these words, or (None) no answer."""
    chars, offsets = data.windows.chars, data.windows.offsets
    start = np.full(len(chars), -5, np.float32)
    for w, i in enumerate(data.windows.example):
        word = said[i]
        for at in range(offsets[w], offsets[w + 1]):
            text = "" if chars[at, 0] < 0 else data.examples.context(i)[slice(*chars[at])]
            if (word or "") == text:
                start[at] = 4
    padded = pad(start, offsets)
    found = top(padded, padded, np.diff(offsets))
    losses = np.arange(len(data.windows), dtype=np.float32)
    windows = np.arange(len(losses)) if windows is None else np.array(windows)
    evaluated = spans.Candidates(*(array[windows] for array in found))
    metrics, rows, details = answer_scores.score_answers(data, windows, losses[windows], evaluated, **options)
    # SQuAD 1.1 has no parts, and of a part of the questions nothing is said.
    assert bool(details) == (not data.answerable_only and len(windows) == len(losses))
    return metrics, list(rows)


def test_squad_1(tmp_path):
    metrics, rows = scored(prepared(tmp_path, 3), ["Anna", "Bob", "Carl"])
    assert metrics == {
        "val_loss": 2.5,
        "val_exact_match": pytest.approx(200 / 3),
        "val_f1": pytest.approx(200 / 3),
    }
    said = rows[0].pop("probability")  # among the n best
    assert 0.4 < said < 0.6  # Anna twice, in both windows
    assert rows[0] == {
        "id": "q0",
        "document": "paragraph 0",  # articles have no titles here
        "question": ASKED[0][1],
        "prediction": "Anna",
        "score": 8.0,
        "answers": ["Anna"],
        "exact_match": 1,
        "f1": 1.0,
        "start": 0,
        "end": 4,
    }
    assert rows[1]["prediction"] == "Bob"
    assert (rows[1]["exact_match"], rows[1]["f1"]) == (0, 0)


def test_squad_2(tmp_path):
    data = prepared(tmp_path, 4)
    metrics, rows = scored(data, ["Anna", None, "stayed", None])
    assert metrics == {"val_loss": 3.5, "val_exact_match": 50.0, "val_f1": 50.0}
    assert [row["prediction"] for row in rows] == ["Anna", "", "stayed", ""]
    assert [row["no_answer_score"] for row in rows] == [-18.0, 18.0, -18.0, 18.0]
    assert rows[2]["start"] == CONTEXTS[1].index("stayed")  # behind a character of two UTF-16 units
    assert (rows[3]["start"], rows[3]["end"], rows[3]["score"]) == (None, None, 8.0)
    json.dumps(rows, allow_nan=False)


def test_details_of_squad_2(tmp_path):
    data = prepared(tmp_path, 4)
    chars, offsets = data.windows.chars, data.windows.offsets
    start = np.full(len(chars), -5, np.float32)
    start[offsets[:-1]] = 1  # "no answer" everywhere, though Anna and Carl are second best
    for w in (0, 1, 4, 5):
        start[offsets[w] + 1] = 0
    padded = pad(start, offsets)
    found = spans.best_spans(data.windows, top(padded, padded, np.diff(offsets)), 4, no_answer=True)
    assert answer_scores.squad2_details(data.examples, found) == {
        "has_answer_exact_match": 0.0,
        "has_answer_f1": 0.0,
        "has_answer_total": 3,
        "no_answer_exact_match": 100.0,
        "no_answer_f1": 100.0,
        "no_answer_total": 1,
        "best_exact_match": 75.0,
        "best_exact_match_threshold": 2.0,
        "best_f1": 75.0,
        "best_f1_threshold": 2.0,
    }


def test_a_window_evaluated_twice(tmp_path):
    with pytest.raises(ValueError, match="twice"):
        scored(prepared(tmp_path, 3), ["Anna", "Bob", "Carl"], windows=[0, 1, 1, 2])


def test_only_questions_with_all_their_windows_count(tmp_path):
    data = prepared(tmp_path, 3)
    metrics, rows = scored(data, ["Anna", "Bob", "Carl"], windows=[0, 1, 2, 4, 5])
    assert metrics == {"val_loss": 2.4, "val_exact_match": 100.0, "val_f1": 100.0}
    assert [row["id"] for row in rows] == ["q0", "q2"]
    with pytest.raises(InputError, match="limit_val_batches"):
        scored(data, ["Anna", "Bob", "Carl"], windows=[0, 3, 4])
