"""Span post-processing: `trainers.spans` against the nested loops of the Hugging Face recipe, same logits.

`python -m benchmarks.spans` takes the 10,570 questions of SQuAD's dev set where it is, else invented ones.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from benchmarks import measure
from trainers import spans
from trainers.inference import top_candidates

N_BEST, MAX_TOKENS, WIDTH, STRIDE = 20, 30, 384, 128


class Windows(NamedTuple):
    """Questions cut into windows, as `datamodules` stores them, with logits for each token."""

    contexts: list[str]
    chars: np.ndarray
    offsets: np.ndarray
    example: np.ndarray
    gold: np.ndarray  # [E, 2] character span of the first answer


def real(shared: Path, limit: int | None = None) -> Windows:
    """Windows of 384 tokens, stride 128, of SQuAD's dev set."""
    from tokenizers import BertWordPieceTokenizer

    tokenizer = BertWordPieceTokenizer(str(shared / "bert-base-uncased-vocab.txt"), lowercase=True)
    tokenizer.enable_truncation(WIDTH, stride=STRIDE, strategy="only_second")
    articles = json.loads((shared / "squad" / "dev-v1.1.json").read_text())["data"]
    rows = [
        (qa["question"], paragraph["context"], qa["answers"][0])
        for article in articles
        for paragraph in article["paragraphs"]
        for qa in paragraph["qas"]
    ][:limit]
    chars: list[np.ndarray] = []
    example: list[int] = []
    for at in range(0, len(rows), 1000):
        batch = [(question.lstrip(), context) for question, context, _ in rows[at : at + 1000]]
        for i, encoding in enumerate(tokenizer.encode_batch(batch), at):
            for window in (encoding, *encoding.overflowing):
                offsets = np.array(window.offsets, np.int32)
                offsets[[kind != 1 for kind in window.sequence_ids]] = -1
                chars.append(offsets)
                example.append(i)
    gold = [(answer["answer_start"], answer["answer_start"] + len(answer["text"])) for _, _, answer in rows]
    contexts = [context for _, context, _ in rows]
    ends = np.cumsum([0, *map(len, chars)])
    return Windows(contexts, np.concatenate(chars), ends, np.array(example, np.int32), np.array(gold))


def invented(count: int, seed: int = 0) -> Windows:
    """The same from invented words of one to nine letters, about 155 of them in a context."""
    rng = np.random.default_rng(seed)
    contexts, chars, example, gold = [], [], [], []
    for i in range(count):
        ends = np.cumsum(rng.integers(1, 10, rng.integers(10, 300)) + 1)
        starts = np.concatenate([[0], ends[:-1]])
        contexts.append("".join(rng.choice(list("abcdefgh"), ends[-1])))
        words = np.stack([starts, ends - 1], axis=1).astype(np.int32)
        question, special = np.full((12, 2), -1, np.int32), np.full((1, 2), -1, np.int32)
        chars.append(np.concatenate([question, words, special]))
        example.append(i)
        first = int(rng.integers(len(words)))
        gold.append((words[first][0], words[min(first + 2, len(words) - 1)][1]))
    ends = np.cumsum([0, *map(len, chars)])
    return Windows(contexts, np.concatenate(chars), ends, np.array(example, np.int32), np.array(gold))


def logits(windows: Windows, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Flat float32 logits as a trained model gives them: noise, peaks at the answer, and at CLS at times."""
    rng = np.random.default_rng(seed)
    total = len(windows.chars)
    gold = windows.gold[np.repeat(windows.example, np.diff(windows.offsets))]
    both = []
    for edge in (0, 1):
        values = rng.normal(-5, 2, total)
        values += 9 * rng.random(total) * (windows.chars[:, edge] == gold[:, edge])
        values[windows.offsets[:-1]] += 8 * rng.random(len(windows.example))
        both.append(values.astype(np.float32))
    return both[0], both[1]


def pad(flat: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Flat logits [T] of windows at `offsets` [W + 1] as float32 [W, longest], -inf after their ends."""
    lengths = np.diff(offsets)
    inside = np.arange(lengths.max(initial=0)) < lengths[:, None]
    padded = np.full(inside.shape, -np.inf, np.float32)
    padded[inside] = flat[offsets[0] : offsets[-1]]
    return padded


def recipe_features(windows: Windows) -> list[list[tuple[int, int] | None]]:
    """What the recipe keeps for each window: an offset for each token of the context, None for the others."""
    pairs: list[list[int]] = windows.chars.tolist()
    bounds = windows.offsets.tolist()
    return [
        [(first, last) if first >= 0 else None for first, last in pairs[begin:end]] for begin, end in pairwise(bounds)
    ]


def recipe(
    windows: Windows,
    features: list[list[tuple[int, int] | None]],
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    *,
    no_answer: bool = False,
    threshold: float = 0.0,
    sort: Literal["stable"] | None = None,
) -> tuple[list[str], list[list[dict[str, Any]]], list[float]]:
    """The peer: the steps of `postprocess_qa_predictions` in the public recipe, loop inside loop.

    `sort="stable"` fixes the order of equal logits, which numpy's default leaves open.

    Returns:
        The answer of each question, its n-best list, and (SQuAD 2.0) its null score minus its best span's.
    """
    windows_of: dict[int, list[int]] = {}
    for window, question in enumerate(windows.example.tolist()):
        windows_of.setdefault(question, []).append(window)
    chosen, lists, differences = [], [], []
    for question, context in enumerate(windows.contexts):
        null: dict[str, Any] | None = None
        entries: list[dict[str, Any]] = []
        for window in windows_of.get(question, []):
            starts, ends, offsets = start_logits[window], end_logits[window], features[window]
            null_score = starts[0] + ends[0]
            if null is None or null["score"] > null_score:
                null = {"span": (0, 0), "score": null_score, "start": starts[0], "end": ends[0]}
            for i in np.argsort(starts, kind=sort)[: -N_BEST - 1 : -1].tolist():
                for j in np.argsort(ends, kind=sort)[: -N_BEST - 1 : -1].tolist():
                    if i >= len(offsets) or j >= len(offsets):
                        continue
                    first, last = offsets[i], offsets[j]
                    if first is None or last is None:
                        continue
                    if j < i or j - i + 1 > MAX_TOKENS:
                        continue
                    entry = {"span": (first[0], last[1]), "score": starts[i] + ends[j]}
                    entries.append({**entry, "start": starts[i], "end": ends[j]})
        if no_answer and null is not None:
            entries.append(null)
        best = sorted(entries, key=lambda entry: entry["score"], reverse=True)[:N_BEST]
        if no_answer and null is not None and all(entry["span"] != (0, 0) for entry in best):
            best.append(null)
        for entry in best:
            begin, end = entry["span"]
            entry["text"] = context[begin:end]
        if not best or (len(best) == 1 and best[0]["text"] == ""):
            best.insert(0, {"text": "empty", "score": 0.0, "start": 0.0, "end": 0.0})
        scores = np.array([entry["score"] for entry in best])
        shares = np.exp(scores - np.max(scores))
        for entry, probability in zip(best, shares / shares.sum(), strict=True):
            entry["probability"] = probability
        if not no_answer:
            chosen.append(best[0]["text"])
        else:
            assert null is not None
            top = next(entry for entry in best if entry["text"])
            difference = null["score"] - top["start"] - top["end"]
            chosen.append("" if difference > threshold else top["text"])
            differences.append(float(difference))
        lists.append(best)
    return chosen, lists, differences


def ours(windows: Windows, start_logits: np.ndarray, end_logits: np.ndarray) -> list[str]:
    """All answers, from the same padded logits."""
    candidates = top_candidates(torch.from_numpy(start_logits), torch.from_numpy(end_logits), N_BEST)
    contexts = windows.contexts
    found = spans.best_spans(windows, candidates, len(contexts), max_answer_tokens=MAX_TOKENS)
    best = map(found.span, range(len(contexts)))
    return [context[slice(*span)] if span else "" for context, span in zip(contexts, best, strict=True)]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=10_570)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    there = measure.SHARED.is_dir()
    windows = real(measure.SHARED, arguments.questions) if there else invented(arguments.questions)
    start, end = (pad(flat, windows.offsets) for flat in logits(windows))
    features = recipe_features(windows)
    contestants: dict[str, Callable[[], list[str]]] = {
        "isotrain": lambda: ours(windows, start, end),
        "recipe's nested loops": lambda: recipe(windows, features, start, end)[0],
    }
    answers: dict[str, list[str]] = {}

    def timed(name: str) -> float:
        begin = time.perf_counter()
        answers[name] = contestants[name]()
        return time.perf_counter() - begin

    names = list(contestants)
    samples = measure.alternate({name: partial(timed, name) for name in names}, arguments.repeats, warm_up=1)
    mine, peer = (samples[name] for name in names)
    same = sum(a == b for a, b in zip(*(answers[name] for name in names), strict=True))
    faster = measure.ratio(peer, mine)
    measure.report(
        f"Span post-processing of {len(windows.contexts):,} questions",
        ["", "seconds: median (least to most)", "times faster", "identical answers"],
        [
            [names[0], mine.text(3), faster.text(1), f"{same:,} of {len(windows.contexts):,}"],
            [names[1], peer.text(2), "1", ""],
        ],
        f"{'SQuAD 1.1 dev' if there else 'Invented questions'}, {len(windows.example):,} windows of at most "
        f"{WIDTH} tokens, n-best {N_BEST}, answers of at most {MAX_TOKENS} tokens. Required: at least "
        "10 times faster. The recipe's features are lists in memory here; it reads them from an Arrow file.",
    )


if __name__ == "__main__":
    main()
