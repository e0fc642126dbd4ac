"""Explanations of answers: which parts of a question and its paragraph speak for the predicted answer."""

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from explain import question_views, shapley, token_gradients, tokens
from explain.model import Subject
from explain.question_views import InputEncoder, Settings, View, Window
from explain.sample import Chunk, example_seed
from trainers import answer_scores, squad_metrics

RIGHT = 0.5  # F1 from which on an answer counts as right

Arrays = dict[str, npt.NDArray[Any]]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def explain(
    subject: Subject, null: Any, chunk: Chunk, settings: Settings, progress: Callable[[], None]
) -> list[Arrays]:
    """Explains the answers to some questions of the validation split.

    Args:
        subject: the model.
        null: the same architecture at random weights.
        chunk: the questions; its `others` are questions to ask in the place of each.
        settings: of the explanation.
        progress: called after each.

    Returns:
        For each question, with k = 1 + its sentences: `values` [k] exact (the question first), `coalitions` [2**k] of the
        target, `same` [2**k], `sentences` [k - 1, 2] their characters, `answer` the group with the answer (-1: none of
        them), `null` [k] of the random weights if they were asked, `gradients` [k], `asked` [R] target with other questions, `words` [w] and
        `word_chars` [w, 3] (0 question, 1 paragraph; first, last + 1), `span` [2] (-1: no answer), `confidence`, `correct`, `cluster` (its
        document).
    """
    reader, rows = InputEncoder(subject), []
    for position, others in zip(chunk.positions, chunk.others, strict=True):
        network = null if position in chunk.null else None
        rows.append(_one(subject, reader, network, position, others, position in chunk.words, settings))
        progress()
    return rows


def _one(
    subject: Subject,
    reader: InputEncoder,
    null: Any,
    index: int,
    others: Sequence[int],
    worded: bool,
    settings: Settings,
) -> Arrays:
    examples = subject.data.examples
    question, context = examples.question(index), examples.context(index)
    window = question_views.find_window(subject, reader, question, context, settings)
    view = View(subject.network, window, reader.hidden, settings, subject.device)
    low, high = int(window.chars[window.chars[:, 0] >= 0][0, 0]), int(window.chars[:, 1].max())
    parts = tokens.split_sentences(context, low, high, settings.sentences)
    group = groups(window, parts)
    players = len(parts) + 1
    hidden = tokens.hide_groups(group, ~shapley.all_coalitions(players))
    response = view.ask(hidden)
    values = shapley.exact_values(response.target)
    random = View(null, window, reader.hidden, settings, subject.device) if null is not None else None
    answer, text = -1, "" if window.span is None else context[slice(*window.span)]
    if window.span is not None:
        answer = next((number for number, (a, b) in enumerate(parts) if a <= window.span[0] < b), -1)
    targets = [_target_of(subject, reader, window, examples.question(other), context, settings) for other in others]
    words, places = np.empty(0), np.empty((0, 3), np.int64)
    if worded:
        words, places = _words(view, reader, question, group, values, parts, context, index)
    score = squad_metrics.score(text, answer_scores.gold_texts(examples, index), no_answer=reader.no_answer)
    return {
        "values": values,
        "coalitions": response.target,
        "same": response.same,
        "sentences": np.array(parts, np.int64),
        "answer": np.array(answer),
        **({"null": shapley.exact_values(random.ask(hidden).target)} if random else {}),
        "gradients": token_gradients.integrated_gradients(view, group, players),
        "asked": np.array(targets),
        "words": words,
        "word_chars": places,
        "span": np.array(window.span or (-1, -1), np.int64),
        "confidence": np.array(window.confidence),
        "correct": np.array(score.f1 >= RIGHT),
        "cluster": np.array(examples.document(index)),
    }


def groups(window: Window, parts: Sequence[tuple[int, int]]) -> Ints:
    """The group [L] of each token: 0 the question, from 1 on the sentences, -1 for tokens of the structure."""
    group = np.full(len(window.ids), -1)
    group[window.asked] = 0
    middle = window.chars.mean(axis=1)
    for number, (first, last) in enumerate(parts):
        group[(window.chars[:, 0] >= 0) & (middle >= first) & (middle < last)] = number + 1
    return group


def _target_of(
    subject: Subject, reader: InputEncoder, window: Window, question: str, context: str, settings: Settings
) -> float:
    """The target, of the same answer, with another question; NaN where the longer question pushes the answer out."""
    windows = reader.windows(question, context)
    logits = question_views.window_logits(subject, windows, settings)
    number, first, last = question_views.locate_span(windows, logits, window.span)
    if window.span is not None and not last:
        return np.nan
    start, end = (side[0].cpu().log_softmax(0) for side in logits[number])
    return float(start[first] + end[last])


def _words(
    view: View, reader: InputEncoder, question: str, group: Ints, values: Any, parts: Sequence[tuple[int, int]],
    context: str, index: int,
) -> tuple[Floats, Ints]:  # fmt: skip
    """Values of the words of the question and of the sentence that says most, while all else is shown."""
    window, sentence = view.window, int(np.abs(values[1:]).argmax())
    places = [(0, *span) for span in tokens.split_words(question)]
    places += [(1, *span) for span in tokens.split_words(context, *parts[sentence])]
    owner = np.full(len(window.ids), -1)
    asked = np.flatnonzero(window.asked)
    offsets = reader.question(question, len(asked))
    for number, (where, first, last) in enumerate(places):
        if where == 0:
            owner[asked[(offsets[:, 0] < last) & (offsets[:, 1] > first)]] = number
        else:
            within = (window.chars[:, 0] >= 0) & (window.chars[:, 0] < last) & (window.chars[:, 1] > first)
            owner[within & (group == sentence + 1)] = number
    seed = example_seed(view.settings.seed, zlib.crc32(str(index).encode()))
    found, kept = tokens.word_values(view, owner, len(places), seed)
    return found, np.array([places[number] for number in kept], np.int64).reshape(-1, 3)
