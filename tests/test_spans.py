"""The best spans, against the recipe's nested loops (benchmarks/spans.py): the same lists, bit for bit."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from benchmarks.spans import Windows, invented, logits, pad, real, recipe, recipe_features
from hypothesis import given, settings
from hypothesis import strategies as st

from config.errors import DivergenceError
from trainers import spans


def top(start: np.ndarray, end: np.ndarray, lengths: np.ndarray, k: int = 20) -> spans.Candidates:
    """The k best starts and ends of each window, equal logits as in the recipe: by a stable sort, reversed."""

    def best(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inside = np.arange(logits.shape[1]) < lengths[:, None]
        positions = np.argsort(np.where(inside, logits, -np.inf), axis=1, kind="stable")[:, ::-1][:, :k]
        present = np.take_along_axis(inside, positions, axis=1)
        values = np.where(present, np.take_along_axis(logits, positions, axis=1), -np.inf)
        return values.astype(np.float32), np.where(present, positions, -1)

    null = (start[:, 0] + end[:, 0]).astype(np.float32)
    return spans.Candidates(*best(start), *best(end), null)


def find(windows: Windows, start: np.ndarray, end: np.ndarray, **options) -> spans.Answers:
    """From flat logits to answers."""
    lengths = np.diff(windows.offsets)
    candidates = top(pad(start, windows.offsets), pad(end, windows.offsets), lengths)
    return spans.best_spans(windows, candidates, len(windows.contexts), **options)


def n_best(found: spans.Answers, i: int, context: str) -> list[dict]:
    """The n-best list of question i; an empty text is "no answer"."""
    columns = (found.start, found.end, found.score, found.probability)
    return [
        {
            "text": context[start:end] if start >= 0 else "",
            "start": start if start >= 0 else None,
            "end": end if start >= 0 else None,
            "score": score,
            "probability": probability,
        }
        for start, end, score, probability in zip(
            *(column[i, : found.count[i]].tolist() for column in columns), strict=True
        )
    ]


def texts(windows: Windows, found: spans.Answers) -> list[str]:
    """The answers."""
    return [context[slice(*found.span(i))] if found.answered[i] else "" for i, context in enumerate(windows.contexts)]


def assert_as_recipe(windows: Windows, start: np.ndarray, end: np.ndarray, no_answer: bool, threshold: float = 0.0):
    """Bit for bit, but for the word "empty" that the recipe puts where there is no span."""
    padded = (pad(flat, windows.offsets) for flat in (start, end))
    expected, lists, differences = recipe(
        windows, recipe_features(windows), *padded, no_answer=no_answer, threshold=threshold, sort="stable"
    )
    found = find(windows, start, end, no_answer=no_answer, threshold=threshold)
    without = [entries[0]["text"] == "empty" for entries in lists]
    assert texts(windows, found) == ["" if none else text for none, text in zip(without, expected, strict=True)]
    if no_answer:
        assert found.no_answer_score.tolist() == differences
    for i, context in enumerate(windows.contexts):
        ours = n_best(found, i, context)
        theirs = lists[i][without[i] :]
        assert [entry["text"] for entry in ours] == [entry["text"] for entry in theirs]
        assert [entry["score"] for entry in ours] == [float(entry["score"]) for entry in theirs]
        if not without[i]:
            assert [entry["probability"] for entry in ours] == [float(entry["probability"]) for entry in theirs]


@pytest.fixture(scope="module")
def dev(shared_data: Path) -> Windows:
    """Windows of real questions: some are long enough for two."""
    windows = real(shared_data, 700)
    assert len(windows.example) > 700
    return windows


@pytest.mark.parametrize("no_answer", [False, True])
@pytest.mark.parametrize("grain", [0.0, 0.5])
def test_real_windows(dev: Windows, no_answer: bool, grain: float):
    start, end = logits(dev, seed=1)
    if grain:  # bfloat16 has few values: ties everywhere
        start, end = (np.round(each / grain).astype(np.float32) * np.float32(grain) for each in (start, end))
    assert_as_recipe(dev, start, end, no_answer)


@cache
def _few(seed: int) -> Windows:
    return adversarial(seed)


def adversarial(seed: int, questions: int = 8) -> Windows:
    """Short and long windows, several of a question, out of order; windows, contexts without a token."""
    rng = np.random.default_rng(seed)
    chars, example, contexts = [], [], []
    for i in range(questions):
        empty = i == 0
        contexts.append("" if empty else "".join(rng.choice(list("ab 𝄞é"), 200)))
        for _ in range(rng.integers(1, 6)):
            words = 0 if empty or rng.random() < 0.2 else int(rng.integers(1, 60))
            begins = np.sort(rng.choice(195, words, replace=False))
            spanned = np.stack([begins, begins + rng.integers(1, 5, words)], axis=1)
            outside = np.full((int(rng.integers(1, 30)), 2), -1)
            chars.append(np.concatenate([outside, spanned, outside[:1]]).astype(np.int32))
            example.append(i)
    order = rng.permutation(len(chars))
    ends = np.cumsum([0, *(len(chars[i]) for i in order)])
    gold = np.zeros((questions, 2), np.int64)
    return Windows(contexts, np.concatenate([chars[i] for i in order]), ends, np.array(example)[order], gold)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 5),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 3, 20, 10**6]),
    st.booleans(),
    st.sampled_from([0.0, -2.5, 3.0]),
)
def test_adversarial_windows(shape: int, seed: int, values: int, no_answer: bool, threshold: float):
    windows = _few(shape)
    rng = np.random.default_rng(seed)
    start, end = (rng.integers(-values, values, len(windows.chars)).astype(np.float32) / 7 for _ in range(2))
    assert_as_recipe(windows, start, end, no_answer, threshold)


def test_equal_logits_and_signed_zeros():
    windows = _few(1)
    same = np.zeros(len(windows.chars), np.float32)
    same[::3] = -0.0
    assert_as_recipe(windows, same, same, no_answer=True)
    extreme = np.where(np.arange(len(same)) % 2, 1e38, -1e38).astype(np.float32)
    assert_as_recipe(windows, extreme, -extreme, no_answer=False)


def one(words: int, start: dict[int, float], end: dict[int, float], **options) -> tuple[Windows, spans.Answers]:
    """One window: CLS, then words of one letter."""
    chars = np.array([(-1, -1)] + [(2 * i, 2 * i + 1) for i in range(words)], np.int32)
    windows = Windows(["w " * words], chars, np.array([0, words + 1]), np.zeros(1, np.int32), np.zeros((1, 2)))
    flat = [np.array([given.get(i, -9.0) for i in range(words + 1)], np.float32) for given in (start, end)]
    return windows, find(windows, *flat, **options)


def test_the_longest_answer_has_thirty_tokens():
    assert one(60, {1: 5.0}, {30: 5.0})[1].span(0) == (0, 59)
    assert one(60, {1: 5.0}, {31: 5.0})[1].span(0) != (0, 61)
    assert one(60, {1: 5.0}, {3: 5.0}, max_answer_tokens=3)[1].span(0) == (0, 5)
    assert one(60, {5: 5.0}, {5: 5.0})[1].span(0) == (8, 9)
    assert one(60, {5: 5.0}, {4: 5.0})[1].span(0) not in ((8, 7), (6, 9))


def test_no_answer_and_its_threshold():
    windows, found = one(9, {0: 4.0, 2: 3.0}, {0: 4.0, 2: 3.0}, no_answer=True)
    assert (found.null[0], found.no_answer_score[0], found.span(0)) == (8.0, 2.0, (2, 3))
    assert not found.answered[0]
    assert n_best(found, 0, windows.contexts[0])[0] | {"probability": 0} == {
        "text": "",
        "start": None,
        "end": None,
        "score": 8.0,
        "probability": 0,
    }
    assert one(9, {0: 4.0, 2: 3.0}, {0: 4.0, 2: 3.0}, no_answer=True, threshold=2.0)[1].answered[0]


def test_no_span_at_all():
    _, found = one(0, {0: 4.0}, {0: 3.0})
    assert (found.span(0), found.answered[0], n_best(found, 0, "")) == (None, False, [])
    _, found = one(0, {0: 4.0}, {0: 3.0}, no_answer=True, threshold=99.0)
    assert (found.span(0), found.answered[0], found.no_answer_score[0]) == (None, False, 7.0)
    assert len(n_best(found, 0, "")) == 1
    windows = Windows([], np.empty((0, 2), np.int32), np.zeros(1, np.int64), np.empty(0, np.int32), np.empty((0, 2)))
    candidates = top(np.empty((0, 1)), np.empty((0, 1)), np.empty(0, np.int64))
    nothing = spans.best_spans(windows, candidates, 2, no_answer=True)
    assert (len(nothing.count), nothing.span(1), nothing.null.tolist()) == (2, None, [0.0, 0.0])


def test_tokens_without_characters_are_no_answer_of_squad_2():
    # Byte-level tokenizers make a token of a space, and trim it to nothing.
    chars = np.array([(-1, -1), (0, 0), (1, 4)], np.int32)
    windows = Windows([" abc"], chars, np.array([0, 3]), np.zeros(1, np.int32), np.zeros((1, 2)))
    flat = np.array([-9, 3, 1], np.float32)
    assert texts(windows, find(windows, flat, flat)) == [""]
    found = find(windows, flat, np.array([-9, 9, 1], np.float32), no_answer=True)
    assert found.span(0) == (0, 4)


def test_shipping_only_the_best_from_several_processes_changes_nothing(dev: Windows):
    start, end = (pad(flat, dev.offsets) for flat in logits(dev, seed=2))
    lengths = np.diff(dev.offsets)
    whole = top(start, end, lengths)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(lengths))
    parts = []
    for numbers in np.split(order, [1, 300, 420]):
        width = lengths[numbers].max()
        batch = top(start[numbers, :width], end[numbers, :width], lengths[numbers])
        shuffled = rng.permutation(batch.start_values.shape[1])  # as torch.topk(sorted=False) may leave them
        parts.append(
            (
                numbers,
                batch._replace(
                    start_values=batch.start_values[:, shuffled],
                    start_positions=batch.start_positions[:, shuffled],
                ),
            )
        )
    windows, joined = spans.merge_candidates(parts)
    assert windows.tolist() == list(range(len(lengths)))
    expected, found = (
        spans.best_spans(dev, candidates, len(dev.contexts), no_answer=True) for candidates in (whole, joined)
    )
    for name in vars(expected):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


def test_collect_widens_short_batches():
    def batch(k: int) -> spans.Candidates:
        return top(np.ones((1, k)), np.ones((1, k)), np.array([k]))

    windows, joined = spans.merge_candidates([(np.array([7]), batch(3)), (np.array([2]), batch(5))])
    assert windows.tolist() == [2, 7]
    assert joined.start_positions.tolist() == [[4, 3, 2, 1, 0], [2, 1, 0, -1, -1]]
    assert joined.end_values[1].tolist() == [1, 1, 1, -np.inf, -np.inf]


def test_bad_input():
    windows = _few(2)
    lengths = np.diff(windows.offsets)
    flat = np.zeros(len(windows.chars), np.float32)
    candidates = top(pad(flat, windows.offsets), pad(flat, windows.offsets), lengths)
    with pytest.raises(ValueError, match="windows"):
        spans.best_spans(windows._replace(offsets=windows.offsets[:-1]), candidates, len(windows.contexts))
    flat[windows.offsets[3] + 1] = np.nan
    with pytest.raises(DivergenceError, match="NaN"):
        find(windows, flat, flat)


def test_invented_questions_of_the_benchmark():
    windows = invented(50)
    assert_as_recipe(windows, *logits(windows), no_answer=False)


def test_needs_no_torch():
    code = (
        "import sys, trainers.spans, trainers.squad_metrics, trainers.baselines, trainers.answer_scores; "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    source = str(Path(spans.__file__).parents[1])
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": source}, check=False).returncode == 0


@pytest.mark.slow
def test_all_of_dev(shared_data: Path):
    windows = real(shared_data)
    assert len(windows.contexts) == 10_570
    for no_answer in (False, True):
        assert_as_recipe(windows, *logits(windows), no_answer)
