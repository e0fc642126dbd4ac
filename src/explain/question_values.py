"""Explanations of answers: values of the question and the sentences of its paragraph for the predicted answer."""

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from explain import question_views, tokens
from explain.model import Subject
from explain.question_views import InputEncoder, Settings, View, Window
from explain.sample import Chunk, example_seed
from explain.tokens import Arrays, Ints, SourceSpan, Span
from trainers import answer_scores, squad_metrics

MIN_F1 = 0.5  # of a correct answer
QUESTION, PARAGRAPH = 0, 1  # the source texts of words


def explain(
    subject: Subject, null: Any, chunk: Chunk, settings: Settings, progress: Callable[[], None]
) -> list[Arrays]:
    """Explain the answers to some questions of the validation split.

    Args:
        subject: the model.
        null: the same architecture with random weights.
        chunk: the questions, with replacements.
        settings: of the explanation.
        progress: called after each.

    Returns:
        For each question: the arrays of `tokens.explain_groups` for k = 1 + its sentences (the question first), `sentences`
        [k - 1, 2], their characters, `answer`, the number of the sentence with the answer (-1: none), `asked` [R], the target
        with the replacements, the arrays of `tokens.word_values` (`QUESTION` or `PARAGRAPH`), `span` [2] (-1: no answer),
        `confidence`, `correct`, `cluster` (its document).
    """
    encoder, rows = InputEncoder(subject), []
    for index in range(len(chunk.positions)):
        rows.append(_explain_answer(subject, encoder, null, chunk, index, settings))
        progress()
    return rows


def _explain_answer(
    subject: Subject, encoder: InputEncoder, null: Any, chunk: Chunk, index: int, settings: Settings
) -> Arrays:
    position = chunk.positions[index]
    examples, mask_id, device = subject.data.examples, encoder.mask_id, subject.device
    question, context = examples.question(position), examples.context(position)
    window = question_views.find_window(subject, encoder, question, context, settings)
    view = View(subject.network, window, mask_id, settings, device)
    null_view = None if position not in chunk.null else View(null, window, mask_id, settings, device)
    low, high = int(window.chars[window.chars[:, 0] >= 0][0, 0]), int(window.chars[:, 1].max())
    sentences = tokens.split_sentences(context, low, high, settings.sentences)
    group = groups(window, sentences)
    arrays = tokens.explain_groups(view, null_view, group, len(sentences) + 1)
    words: list[SourceSpan] = []
    source, chars = np.full(len(window.ids), -1), window.chars.copy()
    if position in chunk.words:  # those of the question and of the strongest sentence
        strongest = int(np.abs(arrays["values"][1:]).argmax())
        words = [(QUESTION, *span) for span in tokens.split_words(question)]
        words += [(PARAGRAPH, *span) for span in tokens.split_words(context, *sentences[strongest])]
        source[window.question_mask], source[group == strongest + 1] = QUESTION, PARAGRAPH
        chars[window.question_mask] = encoder.question_offsets(question, int(window.question_mask.sum()))
    seed = example_seed(settings.seed, zlib.crc32(str(position).encode()))
    replaced = [
        _replaced_target(subject, encoder, window, examples.question(other), context, settings)
        for other in chunk.replacements[index]
    ]
    answer, text = -1, ""
    if window.span is not None:
        text = context[slice(*window.span)]
        answer = next((number for number, (a, b) in enumerate(sentences) if a <= window.span[0] < b), -1)
    gold = answer_scores.gold_texts(examples, position)
    return {
        **arrays,
        "sentences": np.array(sentences, np.int64),
        "answer": np.array(answer),
        "asked": np.array(replaced),
        **tokens.word_values(view, source, chars, words, seed),
        "span": np.array(window.span or (-1, -1), np.int64),
        "confidence": np.array(window.confidence),
        "correct": np.array(squad_metrics.score(text, gold, no_answer=encoder.no_answer).f1 >= MIN_F1),
        "cluster": np.array(examples.document(position)),
    }


def groups(window: Window, sentences: Sequence[Span]) -> Ints:
    """Return the group [L] of each token: 0 the question, from 1 on the sentences, -1 for structure tokens."""
    group = np.full(len(window.ids), -1)
    group[window.question_mask] = 0
    middle = window.chars.mean(axis=1)
    for number, (first, last) in enumerate(sentences):
        group[(window.chars[:, 0] >= 0) & (middle >= first) & (middle < last)] = number + 1
    return group


def _replaced_target(
    subject: Subject, encoder: InputEncoder, window: Window, question: str, context: str, settings: Settings
) -> float:
    """Return the target of the same answer with another question; NaN if the longer question truncates the answer."""
    windows = encoder.windows(question, context)
    logits = question_views.window_logits(subject, windows, settings)
    number, first, last = question_views.locate_span(windows, logits, window.span)
    if window.span is not None and not last:
        return np.nan
    start, end = (side[0].cpu().log_softmax(0) for side in logits[number])
    return float(start[first] + end[last])
