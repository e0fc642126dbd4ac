"""How much of its texts a tokenizer gives back: unknown tokens, and answers that differ once they are a span of tokens.

A tokenizer that does not suit the language or whose offsets are wrong trains a model on wrong answers without any error.
"""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from config.errors import InputError
from datamodules.text.encoding import EncodedTexts, Special
from datamodules.text.examples import Examples
from datamodules.text.labelled_texts import LabelledTexts
from datamodules.text.windows import Windows

logger = logging.getLogger(__name__)

FORMAT = 1  # part of the cache key: increment it when the counts change
WARN_SHARE = 0.01
# Most of the answers, or three in four tokens: nothing that is learned from the rest is worth a run.
MAX_ANSWER_SHARE = 0.5
MAX_UNKNOWN_SHARE = 0.75
MIN_UNKNOWN = 5  # fewer unknown tokens say nothing about a tokenizer, whatever their share is


def count_windows(windows: Windows, examples: Examples, unknown_id: int | None, special: int) -> dict[str, Any]:
    """Count what the windows of a split do not give back of its texts.

    The answers are the targets, one for each question; those that the context does not have are not counted.

    Args:
        windows: of the split.
        examples: of the split.
        unknown_id: id of the unknown token; None: there is none.
        special: number of special tokens of a window.

    Returns:
        `unknown_tokens` and `unknown_token_share`, of the tokens of questions and contexts in all windows;
        `unrecoverable_answers` and `unrecoverable_answer_share`: no window has all of the answer, or the text of its tokens
        there is another; `unrecoverable_answer`, an example for messages, or "".
    """
    spans = np.asarray(examples.spans)
    targets = np.flatnonzero(spans[:, 0] >= 0)
    inside = np.flatnonzero(np.asarray(windows.end) > 0)
    starts, example = windows.offsets[inside], np.asarray(windows.example)[inside]
    first = windows.chars[starts + windows.start[inside], 0]
    last = windows.chars[starts + windows.end[inside], 1]
    equal = (first == spans[example, 0]) & (last == spans[example, 1])
    # Byte-level tokens may have the white space before them.
    for position in np.flatnonzero(~equal):
        question = int(example[position])
        text = examples.context(question)
        equal[position] = text[first[position] : last[position]].strip() == text[slice(*spans[question])]
    lost = np.setdiff1d(targets, example[equal])
    return {
        **_unknown(windows, unknown_id, len(windows.tokens) - special * len(windows)),
        "unrecoverable_answers": len(lost),
        "unrecoverable_answer_share": _share(len(lost), len(targets)),
        "unrecoverable_answer": _describe(examples, int(lost[0]), example, first, last) if len(lost) else "",
    }


def _describe(examples: Examples, question: int, example: Any, first: Any, last: Any) -> str:
    context = examples.context(question)
    answer = context[slice(*examples.spans[question])]
    windows = np.flatnonzero(example == question)
    if not len(windows):
        return f"question {examples.id(question)}: no window has all of {_shorten(answer)}"
    text = context[first[windows[0]] : last[windows[0]]]
    return f"question {examples.id(question)}: the tokens of {_shorten(answer)} give {_shorten(text)}"


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")


def count_texts(texts: EncodedTexts, source: LabelledTexts, unknown_id: int | None, special: Special) -> dict[str, Any]:
    """Count what the tokens of a split do not give back of its texts.

    Args:
        texts: tokens of the split.
        source: the texts.
        unknown_id: id of the unknown token; None: there is none.
        special: special tokens of an input.

    Returns:
        `unknown_tokens` and `unknown_token_share`, of all tokens of texts; `unknown_texts` and `unknown_text_share`: texts
        without any other token.
    """
    counts = np.where(source.has_pair, special.pair, special.single)
    unknown = np.zeros(len(texts), np.int64)
    if unknown_id is not None:
        positions = np.flatnonzero(np.asarray(texts.tokens) == unknown_id)
        np.add.at(unknown, np.searchsorted(texts.offsets, positions, side="right") - 1, 1)
    empty = np.flatnonzero(texts.lengths <= counts + unknown)
    lost = sum(bool(source.text(int(index)).strip() or source.pair(int(index)).strip()) for index in empty)
    return {
        **_unknown(texts, unknown_id, len(texts.tokens) - int(counts.sum())),
        "unknown_texts": lost,
        "unknown_text_share": _share(lost, len(texts)),
    }


def _unknown(texts: Windows | EncodedTexts, unknown_id: int | None, total: int) -> dict[str, Any]:
    count = count_unknown(texts, unknown_id)
    return {"unknown_tokens": count, "unknown_token_share": _share(count, total)}


def count_unknown(texts: Windows | EncodedTexts, unknown_id: int | None) -> int:
    """Count the unknown tokens of windows or texts; 0 for a tokenizer without such a token."""
    return 0 if unknown_id is None else int(np.count_nonzero(np.asarray(texts.tokens) == unknown_id))


def warn_unknown(count: int, total: int) -> None:
    """Log a warning if unknown tokens are more than a small share of all tokens of the texts to predict."""
    warn("the inputs", "the model's", {"unknown_tokens": count, "unknown_token_share": _share(count, total)})


def _share(count: int, total: int) -> float:
    return round(count / total, 6) if total else 0.0


def check(split: str, tokenizer: str, counts: Mapping[str, Any]) -> None:
    """Refuse a tokenizer that loses most of a split.

    Args:
        split: for the message.
        tokenizer: its source, for the message.
        counts: of the split, from this module.

    Raises:
        InputError: it does.
    """
    if problem := _problem(counts, MAX_ANSWER_SHARE, MAX_UNKNOWN_SHARE):
        raise InputError(
            f"{split}: {problem}; the tokenizer ({tokenizer}) does not suit these texts, or its offsets are wrong: set "
            "model.tokenizer or model.pretrained to one of their language, or both to null to train a vocabulary on them"
        )


def warn(split: str, tokenizer: str, counts: Mapping[str, Any]) -> None:
    """Log a warning if a tokenizer loses more than a small share of a split; see `check` for the arguments."""
    if problem := _problem(counts, WARN_SHARE, WARN_SHARE):
        logger.warning("%s: %s (tokenizer: %s)", split, problem, tokenizer)


def _problem(counts: Mapping[str, Any], answers: float, unknown: float) -> str:
    """Say which share of `counts` is above its limit; "" if none is."""
    problems = []
    if counts.get("unrecoverable_answer_share", 0) > answers:
        problems.append(
            f"{counts['unrecoverable_answers']} answers ({counts['unrecoverable_answer_share']:.1%}) are not given back by "
            f"their tokens ({counts['unrecoverable_answer']})"
        )
    enough = max(counts["unknown_tokens"], counts.get("unknown_texts", 0)) >= MIN_UNKNOWN
    if enough and counts["unknown_token_share"] > unknown:
        problems.append(f"{counts['unknown_token_share']:.1%} of the tokens are unknown")
    if enough and counts.get("unknown_text_share", 0) > unknown:
        share = counts["unknown_text_share"]
        problems.append(f"{counts['unknown_texts']} texts ({share:.1%}) have unknown tokens only")
    return ", and ".join(problems)
