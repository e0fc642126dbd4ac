"""Answers to questions, scored: the metrics of a validation and the rows of predictions.jsonl."""

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
    threshold: float = 0.0,
) -> tuple[dict[str, float], Iterator[dict[str, Any]], dict[str, Any]]:
    """Scores the validation split.

    Args:
        data: a QuestionAnsweringData that is set up.
        windows: [W], the numbers of the windows that were evaluated, ascending. With
            `trainer.limit_val_batches` that is not all; then the questions of which all windows were are
            scored.
        losses: [W], mean of the start's and the end's cross-entropy in each window.
        candidates: of those windows.
        n_best: entries of a question's n-best list.
        max_answer_tokens: longest answer.
        threshold: SQuAD 2.0: "no answer" it is where the no-answer score is above this.

    Returns:
        The task's metrics, a row per question (its `exact_match` and `f1` are 0 to 1), and `details` of data with
        unanswerable questions, if all were evaluated.

    Raises:
        ValueError: a window was evaluated twice.
        InputError: no question had all its windows evaluated.
    """
    if len(np.unique(windows)) != len(windows):
        raise ValueError(f"{len(windows)} windows were evaluated, some of them twice")
    no_answer, count = not data.answerable_only, len(data.examples)
    known = data.windows
    unseen = np.setdiff1d(np.arange(len(known)), windows)
    if len(unseen):
        candidates = Candidates(*(_spread(array, windows, len(known)) for array in candidates))
    found = find_answers(
        known,
        candidates,
        count,
        n_best=n_best,
        max_answer_tokens=max_answer_tokens,
        no_answer=no_answer,
        threshold=threshold,
    )
    scores = list(scored(data.examples, found, no_answer))
    every = rows(data.examples, found, scores, no_answer)
    if len(unseen):
        seen = ~np.isin(np.arange(count), known.example[unseen])
        scores, every = list(compress(scores, seen)), compress(every, seen)
        if not scores:
            raise InputError("no question had all its windows evaluated; raise trainer.limit_val_batches")
    loss = float(np.mean(losses, dtype=np.float64))
    about = squad2_details(data.examples, found) if no_answer and not len(unseen) else {}
    return {"val_loss": loss, **answer_metrics(scores, no_answer)}, every, about


def _spread(array: Any, windows: Ints, count: int) -> Any:
    """[W, ...] as [count, ...], with no candidate where a window was not evaluated."""
    full = np.full((count, *array.shape[1:]), -np.inf if array.dtype.kind == "f" else -1, array.dtype)
    full[windows] = array
    return full


def find_answers(
    windows: Any,
    candidates: Candidates,
    count: int,
    *,
    n_best: int = 20,
    max_answer_tokens: int = 30,
    no_answer: bool = False,
    threshold: float = 0.0,
) -> Answers:
    """`spans.best_spans` over a `datamodules.text.windows.Windows` of `count` questions."""
    return spans.best_spans(
        candidates,
        windows.chars,
        windows.offsets,
        windows.example,
        count,
        n_best=n_best,
        max_tokens=max_answer_tokens,
        no_answer=no_answer,
        threshold=threshold,
    )


def scored(examples: Examples, found: Answers, no_answer: bool, always: bool = False) -> Iterator[Score]:
    """Scores each question's answer, or with `always` its best span even where "no answer" was said."""
    for i in range(len(examples)):
        span = found.span(i) if always or found.answered[i] else None
        text = "" if span is None else examples.context(i)[slice(*span)]
        yield squad_metrics.score(text, gold_texts(examples, i), no_answer=no_answer)


def gold_texts(examples: Examples, i: int) -> list[str]:
    """The texts of the gold answers of question i."""
    return [answer["text"] for answer in examples.answers(i)]


def answer_metrics(scores: Sequence[Score], no_answer: bool) -> dict[str, float]:
    """The metrics by name, 0 to 100."""
    total = squad_metrics.totals(scores, no_answer=no_answer)
    return {"val_exact_match": total.exact_match, "val_f1": total.f1}


def rows(examples: Examples, found: Answers, scores: Sequence[Score], no_answer: bool) -> Iterator[dict[str, Any]]:
    """The rows of predictions.jsonl, made one at a time."""
    for i, one in enumerate(scores):
        span, fields = answer_fields(found, i, no_answer)
        yield answer_row(examples, i, span, one, fields)


def answer_fields(found: Answers, i: int, no_answer: bool) -> tuple[tuple[int, int] | None, dict[str, Any]]:
    """What a model answers to question i.

    Returns:
        The answer's characters in the context, None for no answer; and `start`, `end`, `score` (the model's, of what it
        answered), `no_answer_score` (SQuAD 2.0: the higher, the less likely an answer), `probability` (of what was
        answered, among the n best).
    """
    span = found.span(i) if found.answered[i] else None
    unanswered = float(found.null[i]) if no_answer else 0.0
    start, end = (None, None) if span is None else span
    score = unanswered if span is None else float(found.score[i, found.best[i]])
    fields = {"start": start, "end": end, "score": score}
    if no_answer:
        fields["no_answer_score"] = float(found.no_answer_score[i])
    return span, {**fields, "probability": _probability(found, i)}


def _probability(found: Answers, i: int) -> float:
    """Of what was answered, among the n best; 0 where that is not one of them."""
    entries = np.array([found.best[i]]) if found.answered[i] else np.flatnonzero(found.start[i, : found.count[i]] < 0)
    return float(found.probability[i, entries[0]]) if len(entries) else 0.0


def answer_row(
    examples: Examples, i: int, span: tuple[int, int] | None, one: Score, fields: dict[str, Any]
) -> dict[str, Any]:
    """One row of predictions.jsonl.

    Args:
        examples: the split.
        i: the question.
        span: characters of the answer in the context; None for no answer.
        one: the answer's exact match and F1.
        fields: `start`, `end`, `score` and, where they are known, `no_answer_score` and `probability`.
    """
    return {
        "id": examples.id(i),
        "document": examples.document(i),
        "question": examples.question(i),
        "prediction": "" if span is None else examples.context(i)[slice(*span)],
        "score": fields["score"],
        "answers": gold_texts(examples, i),
        "exact_match": one.exact_match,
        "f1": one.f1,
        "start": fields["start"],
        "end": fields["end"],
        **{name: fields[name] for name in ("no_answer_score", "probability") if fields.get(name) is not None},
    }


def squad2_details(examples: Examples, found: Answers) -> dict[str, float]:
    """What SQuAD 2.0's script reports beside exact match and F1.

    Returns:
        `has_answer_exact_match`, `has_answer_f1`, `has_answer_total`, the same with `no_answer_` (either
        is left out where there is no such question), and `best_exact_match`, `best_f1` with the thresholds
        on the no-answer score that give them.
    """
    has = [bool(each) for each in examples.answerable]
    said = list(scored(examples, found, no_answer=True))
    result: dict[str, float] = {}
    for name, wanted in (("has_answer", True), ("no_answer", False)):
        part = [one for one, answerable in zip(said, has, strict=True) if answerable is wanted]
        if part:
            total = squad_metrics.totals(part, no_answer=True)
            result |= {f"{name}_{key}": value for key, value in total._asdict().items()}
    spoken = list(scored(examples, found, no_answer=True, always=True))
    answered, doubt = (found.best >= 0).tolist(), found.no_answer_score.tolist()
    for name in ("exact_match", "f1"):
        best = squad_metrics.best_threshold([getattr(one, name) for one in spoken], has, answered, doubt)
        result |= {f"best_{name}": best.value, f"best_{name}_threshold": best.threshold}
    return result
