"""From start and end logits to answers: the best spans over all windows of a question, without Python loops.

The answers are those of the public Hugging Face question-answering recipe (`postprocess_qa_predictions`), computed with
array operations: in each window the 20 best starts and the 20 best ends are paired, pairs that are no span of the
context or too long are dropped, and the best pairs over the windows of a question are its n-best list.

Two cases that the recipe leaves open are defined here. Equal logits: the later token comes first, as with a reversed
stable sort. A question without any span: the answer is empty, where the recipe uses the word "empty" as a stand-in.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from config.errors import DivergenceError

Floats = NDArray[np.float32]
Ints = NDArray[Any]
Keys = NDArray[np.int64]

# The key of a missing entry: less than that of any number.
_NONE = np.iinfo(np.int64).min

# Windows processed at a time: their pairs of starts and ends fit the processor's cache.
_BLOCK = 256


class Candidates(NamedTuple):
    """The best starts and ends of windows: all that has to leave the device or process of the logits.

    In any order along k. A value of -inf, or a position of -1, means that there are fewer than k.

    Attributes:
        start_values: float32 [W, k], start logits.
        start_positions: int [W, k], their tokens, counted from the beginning of the window.
        end_values: float32 [W, k].
        end_positions: int [W, k].
        null: float32 [W], start plus end logit of the first token (CLS): the score of "no answer here".
    """

    start_values: Floats
    start_positions: Ints
    end_values: Floats
    end_positions: Ints
    null: Floats


@dataclass(frozen=True)
class Answers:
    """The n-best lists of E questions, best first, and which of them is the answer.

    A list has `count` entries; "no answer" (in SQuAD 2.0, always) is the entry with span (-1, -1).

    Attributes:
        start: int32 [E, N], first character of the span in the context.
        end: int32 [E, N], the character after its last.
        score: float32 [E, N], sum of the two logits.
        probability: float32 [E, N], softmax of the scores over the list.
        count: int [E].
        best: int [E], the entry that is the best span with text; -1 if there is none.
        null: float32 [E], the least "no answer" score over the windows, which all have to agree on it.
        no_answer_score: float32 [E], `null` minus the score of the best span: the higher, the less likely
            an answer.
        answered: bool [E], whether the best span is the answer, and not "no answer".
    """

    start: NDArray[np.int32]
    end: NDArray[np.int32]
    score: Floats
    probability: Floats
    count: Ints
    best: Ints
    null: Floats
    no_answer_score: Floats
    answered: NDArray[np.bool_]

    def span(self, i: int) -> tuple[int, int] | None:
        """Return the best span of question i, whether or not it is the answer, in characters of the context."""
        best = self.best[i]
        return None if best < 0 else (int(self.start[i, best]), int(self.end[i, best]))


def merge_candidates(parts: Iterable[tuple[Ints, Candidates]]) -> tuple[Ints, Candidates]:
    """Merge the candidates of batches, and of processes, in the order of their windows.

    Args:
        parts: for each batch its window numbers [B] and its candidates; k may differ if windows are short.

    Returns:
        The window numbers, ascending, and the candidates [W, largest k].
    """
    numbers, batches = zip(*parts, strict=True)
    windows = np.concatenate(numbers)
    order = np.argsort(windows, kind="stable")
    k = max(batch.start_values.shape[1] for batch in batches)

    def merge(field: int, fill: float) -> Any:
        arrays = (batch[field] for batch in batches)
        padding = ((0, 0), (0, k))
        return np.concatenate([np.pad(array, padding, constant_values=fill)[:, :k] for array in arrays])[order]

    null = np.concatenate([batch.null for batch in batches])[order]
    return windows[order], Candidates(merge(0, -np.inf), merge(1, -1), merge(2, -np.inf), merge(3, -1), null)


def best_spans(
    windows: Any,
    candidates: Candidates,
    count: int,
    *,
    n_best: int = 20,
    max_answer_tokens: int = 30,
    no_answer: bool = False,
    threshold: float = 0.0,
) -> Answers:
    """Find the answers to all questions.

    Args:
        windows: W windows (a `datamodules.text.windows.Windows`): `chars` [T, 2], first character and the one after the
            last of each token in its context, -1 for tokens outside it; `offsets` [W + 1], window w has the tokens
            offsets[w] to offsets[w + 1]; `example` [W], the question of each window, 0 to count - 1.
        candidates: candidates of all windows.
        count: number of questions, E.
        n_best: entries of each question's list.
        max_answer_tokens: the longest answer.
        no_answer: whether questions may have no answer (SQuAD 2.0).
        threshold: no-answer score above which a question has no answer.

    Raises:
        DivergenceError: a logit is not a number.
        ValueError: the numbers of windows differ.
    """
    offsets, example = windows.offsets, windows.example
    if not len(candidates.null) == len(offsets) - 1 == len(example):
        lengths = f"{len(candidates.null)} windows, offsets of {len(offsets) - 1}, examples of {len(example)}"
        raise ValueError(f"candidates of {lengths}")
    if any(np.isnan(values).any() for values in (candidates.start_values, candidates.end_values, candidates.null)):
        raise DivergenceError("the model's logits are not numbers (NaN): no answer can be read from them")

    numbers = np.arange(len(example))
    blocks = [
        _window_spans(candidates, windows.chars, offsets, numbers[start : start + _BLOCK], n_best, max_answer_tokens)
        for start in range(0, len(example), _BLOCK)
    ]
    spans = np.concatenate(blocks) if blocks else np.empty(0, _SPAN)
    questions = example[spans["window"]]

    null = np.full(count, np.inf, np.float32)
    np.minimum.at(null, example, candidates.null)
    null[np.isinf(null)] = 0  # a question without windows
    if no_answer:
        empty = np.zeros(count, _SPAN)
        empty["start"], empty["end"], empty["score"] = -1, -1, null
        spans, questions = np.concatenate([spans, empty]), np.concatenate([questions, np.arange(count)])

    # Stable: of equal scores the earlier window, the better start, the better end come first, "no answer"
    # last. One key, because the entries come nearly sorted by it, which a stable sort makes use of.
    order = np.argsort((questions.astype(np.int64) << 32) - (_keys(spans["score"], 0) >> 32), kind="stable")
    spans, questions = spans[order], questions[order]
    listed = (_rank(questions, count) < n_best) | (spans["start"] < 0)
    spans, questions = spans[listed], questions[listed]
    cells = questions, _rank(questions, count)

    def table(values: NDArray[Any], fill: float) -> NDArray[Any]:
        filled = np.full((count, n_best + no_answer), fill, values.dtype)
        filled[cells] = values
        return filled

    start, end, score = table(spans["start"], -1), table(spans["end"], -1), table(spans["score"], -np.inf)
    counts = np.bincount(questions, minlength=count)
    # In SQuAD 2.0 an empty text means "no answer", so it cannot be the best span. In 1.1 the first entry
    # is the answer.
    usable = end > start if no_answer else start >= 0
    best = np.where(usable.any(axis=1), usable.argmax(axis=1), -1) if count else np.empty(0, np.int64)
    rows, has_span = np.arange(count), best >= 0
    logits = (table(spans[name], 0)[rows, best] for name in ("start_logit", "end_logit"))
    # One after the other, as the recipe subtracts them: the last digit decides against a threshold.
    difference = null.copy()
    for logit in logits:
        difference -= np.where(has_span, logit, np.float32(0))
    answered = has_span & ~(difference > threshold) if no_answer else has_span
    return Answers(start, end, score, _softmax(score, counts), counts, best, null, difference, answered)


_SPAN = np.dtype(
    [
        ("window", np.int64),
        ("start", np.int32),
        ("end", np.int32),
        ("score", np.float32),
        ("start_logit", np.float32),
        ("end_logit", np.float32),
    ]
)


def _window_spans(
    candidates: Candidates, chars: Ints, offsets: Ints, windows: Ints, n_best: int, max_tokens: int
) -> NDArray[Any]:
    """Return the n best spans of each of some windows, as `_SPAN` records: by window, best first."""
    first_token, length = offsets[windows, None], (offsets[windows + 1] - offsets[windows])[:, None]

    def side(values: Floats, positions: Ints, edge: int) -> tuple[Floats, Ints, Ints]:
        values, positions = values[windows].astype(np.float32, copy=False), positions[windows]
        missing = (positions < 0) | (positions >= length) | np.isneginf(values)
        keys = np.where(missing, _NONE, _keys(values, np.where(missing, 0, positions)))
        values, positions = _unkeys(_largest(keys, keys.shape[1]))
        characters = chars[np.where(positions < 0, first_token, first_token + positions), edge]
        return values, positions, np.where(positions < 0, -1, characters)

    start_logit, start, first = side(candidates.start_values, candidates.start_positions, 0)
    end_logit, end, last = side(candidates.end_values, candidates.end_positions, 1)
    tokens = end[:, None, :] - start[:, :, None]
    valid = (tokens >= 0) & (tokens < max_tokens) & (first >= 0)[:, :, None] & (last >= 0)[:, None, :]
    with np.errstate(invalid="ignore"):  # inf - inf, in pairs that are not valid
        score = start_logit[:, :, None] + end_logit[:, None, :]
    k = end.shape[1]
    pairs = start.shape[1] * k
    keys = _keys(score.reshape(-1, pairs), np.arange(pairs - 1, -1, -1))
    keys[~valid.reshape(-1, pairs)] = _NONE
    best = _largest(keys, n_best)
    row, column = np.nonzero(best != _NONE)
    scores, ties = _unkeys(best[row, column])
    i, j = np.divmod(pairs - 1 - ties, k)
    spans = np.empty(len(row), _SPAN)
    spans["window"], spans["score"] = windows[row], scores
    spans["start"], spans["end"] = first[row, i], last[row, j]
    spans["start_logit"], spans["end_logit"] = start_logit[row, i], end_logit[row, j]
    return spans


def _keys(values: Floats, tie: Ints | int) -> Keys:
    """Return integers that sort as `values` do, and equal values as `tie` (0 to 2**31 - 1)."""
    return (_flip((values + np.float32(0)).view(np.int32)).astype(np.int64) << 32) | tie


def _unkeys(keys: Keys) -> tuple[Floats, NDArray[np.int32]]:
    """Return the values and ties of keys; -inf and -1 for `_NONE`."""
    values, none = _flip((keys >> 32).astype(np.int32)).view(np.float32), keys == _NONE
    return np.where(none, np.float32(-np.inf), values), np.where(none, np.int32(-1), keys.astype(np.int32))


def _flip(bits: NDArray[np.int32]) -> NDArray[np.int32]:
    """Convert the bits of floats (no -0.0) to integers of the same order, and back (IEEE 754: sign and magnitude)."""
    return bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))


def _largest(keys: Keys, k: int) -> Keys:
    """Return the k largest keys of each row, or all of a shorter row, largest first."""
    # np.partition is many times slower if most keys are equal, as those of pairs that are no span.
    return np.sort(keys, axis=1)[:, ::-1][:, :k]


def _rank(questions: Ints, count: int) -> Ints:
    """Return the rank of each entry among those of its question, from 0; `questions` is sorted."""
    first: Ints = np.searchsorted(questions, np.arange(count))
    return np.arange(len(questions)) - first[questions]


def _softmax(score: Floats, counts: Ints) -> Floats:
    """Return the softmax over the first `counts` entries of each row, 0 after them."""
    probability = np.zeros_like(score)
    # Rows of one length at a time: numpy's sum of a row depends, in its last digit, on the row's length.
    for n in np.unique(counts[counts > 0]):
        rows = np.flatnonzero(counts == n)
        shares = np.exp(score[rows, :n] - score[rows, :1])
        probability[rows, :n] = shares / shares.sum(axis=1, keepdims=True)
    return probability
