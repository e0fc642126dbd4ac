"""Scores of answers: the metrics of a validation and the rows of predictions.jsonl."""

from collections.abc import Iterator, Sequence
from itertools import compress
from typing import Any

import numpy as np

from config.errors import InputError
from datamodules.text.examples import Examples
from trainers import spans, squad_metrics
from trainers.spans import Answers, Candidates, Floats, Ints
from trainers.squad_metrics import Score


def score_answers(
    data: Any,
    windows: Ints,
    losses: Floats,
    candidates: Candidates,
    *,
    n_best: int = 20,
    max_answer_tokens: int = 30,
) -> tuple[dict[str, float], Iterator[dict[str, Any]], dict[str, Any]]:
    """Score the validation split.

    Args:
        data: a QuestionAnsweringData that is set up.
        windows: [W] numbers of the evaluated windows, ascending. They may be a part (`trainer.limit_val_batches`); only
            questions with all their windows are scored then.
        losses: [W] mean of the start's and the end's cross-entropy in each window.
        candidates: candidates of those windows.
        n_best: entries of a question's n-best list.
        max_answer_tokens: longest answer.

    Returns:
        The metrics; a row for each question (its `exact_match` and `f1` are 0 to 1); and details of data with
        unanswerable questions, if all windows were evaluated.

    Raises:
        ValueError: a window was evaluated twice.
        InputError: no question has all its windows evaluated.
    """
    if len(np.unique(windows)) != len(windows):
        raise ValueError(f"{len(windows)} windows were evaluated, some of them twice")
    no_answer, count = not data.answerable_only, len(data.examples)
    missing = np.setdiff1d(np.arange(len(data.windows)), windows)
    if len(missing):
        candidates = Candidates(*(_expand(array, windows, len(data.windows)) for array in candidates))
    answers = spans.best_spans(
        data.windows,
        candidates,
        count,
        n_best=n_best,
        max_answer_tokens=max_answer_tokens,
        no_answer=no_answer,
    )
    scores = list(_iter_scores(data.examples, answers, no_answer))
    rows: Iterator[dict[str, Any]] = (
        answer_row(data.examples, i, score, answer_fields(answers, i, no_answer)) for i, score in enumerate(scores)
    )
    if len(missing):
        complete = ~np.isin(np.arange(count), data.windows.example[missing])
        scores, rows = list(compress(scores, complete)), compress(rows, complete)
        if not scores:
            raise InputError("no question has all its windows evaluated; raise trainer.limit_val_batches")
    loss = float(np.mean(losses, dtype=np.float64))
    details = squad2_details(data.examples, answers) if no_answer and not len(missing) else {}
    return {"val_loss": loss, **answer_metrics(scores, no_answer)}, rows, details


def gold_texts(examples: Examples, i: int) -> list[str]:
    """Return the texts of the gold answers of question i."""
    return [answer["text"] for answer in examples.answers(i)]


def answer_metrics(scores: Sequence[Score], no_answer: bool) -> dict[str, float]:
    """Return the metrics by name, 0 to 100."""
    total = squad_metrics.totals(scores, no_answer=no_answer)
    return {"val_exact_match": total.exact_match, "val_f1": total.f1}


def answer_fields(answers: Answers, i: int, no_answer: bool) -> dict[str, Any]:
    """Return the answer to question i, as fields of a row.

    Returns:
        `start` and `end`, characters of the answer in the context, None for no answer; `score` of the answer;
        `no_answer_score` (SQuAD 2.0: the higher, the less likely an answer); `probability` of the answer among the n best,
        0 if it is not one of them.
    """
    answered = answers.answered[i]
    span = answers.span(i) if answered else None
    start, end = (None, None) if span is None else span
    null = float(answers.null[i]) if no_answer else 0.0
    score = null if span is None else float(answers.score[i, answers.best[i]])
    entries = [answers.best[i]] if answered else np.flatnonzero(answers.start[i, : answers.count[i]] < 0)
    return {
        "start": start,
        "end": end,
        "score": score,
        **({"no_answer_score": float(answers.no_answer_score[i])} if no_answer else {}),
        "probability": float(answers.probability[i, entries[0]]) if len(entries) else 0.0,
    }


def answer_text(context: str, fields: dict[str, Any]) -> str:
    """Return the text of an answer with `start` and `end`; empty for no answer."""
    return "" if fields["start"] is None else context[fields["start"] : fields["end"]]


def answer_row(examples: Examples, i: int, score: Score, fields: dict[str, Any]) -> dict[str, Any]:
    """Return a row of predictions.jsonl.

    Args:
        examples: the split.
        i: the question.
        score: the answer's exact match and F1.
        fields: `start`, `end`, `score` and, if available, `no_answer_score` and `probability`.
    """
    return {
        "id": examples.id(i),
        "document": examples.document(i),
        "question": examples.question(i),
        "prediction": answer_text(examples.context(i), fields),
        "score": fields["score"],
        "answers": gold_texts(examples, i),
        "exact_match": score.exact_match,
        "f1": score.f1,
        "start": fields["start"],
        "end": fields["end"],
        **{name: fields[name] for name in ("no_answer_score", "probability") if fields.get(name) is not None},
    }


def squad2_details(examples: Examples, answers: Answers) -> dict[str, float]:
    """Return what SQuAD 2.0's script reports beside exact match and F1.

    Returns:
        `has_answer_exact_match`, `has_answer_f1`, `has_answer_total`, the same with `no_answer_` (either is absent if
        there is no such question), and `best_exact_match`, `best_f1` with the thresholds on the no-answer score that
        give them.
    """
    answerable = [bool(value) for value in examples.answerable]
    scores = list(_iter_scores(examples, answers, no_answer=True))
    details: dict[str, float] = {}
    for name, group in (("has_answer", True), ("no_answer", False)):
        part = [score for score, has_answer in zip(scores, answerable, strict=True) if has_answer is group]
        if part:
            total = squad_metrics.totals(part, no_answer=True)
            details |= {f"{name}_{key}": value for key, value in total._asdict().items()}
    span_scores = list(_iter_scores(examples, answers, no_answer=True, always=True))
    has_span, no_answer_scores = (answers.best >= 0).tolist(), answers.no_answer_score.tolist()
    for name in ("exact_match", "f1"):
        values = [getattr(score, name) for score in span_scores]
        best = squad_metrics.best_threshold(values, answerable, has_span, no_answer_scores)
        details |= {f"best_{name}": best.value, f"best_{name}_threshold": best.threshold}
    return details


def _expand(array: Any, windows: Ints, count: int) -> Any:
    """Expand [W, ...] to [count, ...], with no candidate in windows that were not evaluated."""
    full = np.full((count, *array.shape[1:]), -np.inf if array.dtype.kind == "f" else -1, array.dtype)
    full[windows] = array
    return full


def _iter_scores(examples: Examples, answers: Answers, no_answer: bool, always: bool = False) -> Iterator[Score]:
    """Score each question's answer, or with `always` its best span even if the answer is "no answer"."""
    for i in range(len(examples)):
        span = answers.span(i) if always or answers.answered[i] else None
        text = "" if span is None else examples.context(i)[slice(*span)]
        yield squad_metrics.score(text, gold_texts(examples, i), no_answer=no_answer)
