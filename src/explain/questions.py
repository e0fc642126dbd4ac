"""Explanations of answers: which parts of a question and its paragraph speak for the predicted answer."""

import inspect
import re
import zlib
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch

from config.ranges import Range
from datamodules.windows import Encoder, Limits, Windows
from explain import gradients, shapley
from explain.images import evenly, hash_of
from explain.model import Subject, arithmetic
from trainers import answers, squad_metrics
from trainers.spans import Candidates

FORMAT = 3  # part of the cache's key: raise it when what is found changes
WORDS = 48  # of the question and the chosen sentence; the rest of longer ones stays shown
N_BEST = 20
RIGHT = 0.5  # F1 from which on an answer counts as right

Arrays = dict[str, npt.NDArray[Any]]
Bools = npt.NDArray[np.bool_]

# A sentence ends at . ! or ? (and closing quotes or brackets) before a space and no small letter.
_END = re.compile(r"[.!?][\"')\]”’]*\s+(?![a-zß-ÿ])")
_WORD = re.compile(r"\w+(?:[-'’.,]\w+)*|[^\w\s]")


@dataclass(frozen=True)
class Settings:
    """What decides the values; conf/explain says what each does."""

    sentences: Annotated[int, Range(low=1, high=10)]
    max_answer_tokens: int
    other_questions: Annotated[int, Range(low=1, high=100)]
    batch_size: int
    seed: int
    bfloat16: bool


@dataclass(frozen=True)
class Extent:
    """What else is explained; conf/explain says what each does."""

    words: Annotated[int, Range(low=0, high=10**6)]


@dataclass(frozen=True)
class Window:
    """A question and the part of its paragraph in which the model finds its answer, as one input.

    Attributes:
        ids: [L] tokens.
        types: [L] token types; None if the model takes none.
        chars: [L, 2] characters of each token in the paragraph, -1 outside it.
        asked: bool [L], tokens of the question.
        start, end: tokens of the predicted answer; 0, 0 for "no answer".
        span: its characters; None for "no answer".
        confidence: probability of the answer among the n best.
    """

    ids: npt.NDArray[np.int64]
    types: npt.NDArray[np.int64] | None
    chars: npt.NDArray[np.int64]
    asked: Bools
    start: int
    end: int
    span: tuple[int, int] | None
    confidence: float


@dataclass(frozen=True)
class Asked:
    """What a network says while some parts are hidden.

    Attributes:
        target: [E] log-probability of the answer that it predicts of the whole: of its start and its end.
        same: [E] whether that is still its answer.
    """

    target: npt.NDArray[np.float64]
    same: Bools


class Reader:
    """How a model's texts become tokens."""

    def __init__(self, subject: Subject) -> None:
        """Opens the tokenizer of the data module, which is the model's."""
        data = subject.data
        self.encoder = Encoder(data.prepared_tokenizer.folder / "tokenizer.json")
        self.limits: Limits = data.limits
        self.pad_id, self.uses_types = data.pad_id, data.uses_types
        self.no_answer = not data.answerable_only
        self.inputs = tuple(inspect.signature(subject.network.forward).parameters)
        tokenizer = data.tokenizer()
        tokens = (getattr(tokenizer, name, None) for name in ("mask_token_id", "unk_token_id", "pad_token_id"))
        self.hidden = next(token for token in tokens if token is not None)

    def windows(self, question: str, context: str) -> Windows:
        """The windows of a question and its paragraph."""
        return Windows.of_records(self.encoder, [(question, context)], self.limits, self.pad_id, self.uses_types)

    def question(self, text: str, count: int) -> npt.NDArray[np.int64]:
        """Characters [count, 2] of a question's first tokens."""
        return np.asarray(self.encoder.encode([text])[1][:count], np.int64)


class View:
    """One window, with some tokens shown and the others replaced by the mask token; its length never changes."""

    def __init__(self, network: Any, window: Window, mask_id: int, settings: Settings, device: torch.device) -> None:
        """Takes a window; structure tokens stay as they are.

        Args:
            network: of transformers.
            window: what is asked.
            mask_id: stands for a hidden token.
            settings: of the explanation.
            device: where the network is.
        """
        self.network, self.window, self.settings, self.device = network, window, settings, device
        self.mask_id = mask_id

    def ask(self, hidden: Bools) -> Asked:
        """What the network says with these tokens [E, L] hidden."""
        window = self.window
        targets, same = [], []
        for rows in evenly(hidden, self.settings.batch_size):
            part = torch.from_numpy(rows).to(self.device)
            ids = torch.from_numpy(window.ids).to(self.device).expand(len(part), -1).masked_fill(part, self.mask_id)
            start, end = self.logits(ids)
            said = start.log_softmax(1)[:, window.start] + end.log_softmax(1)[:, window.end]
            targets.append(said.double().cpu().numpy())
            same.append(self._same(start, end))
        return Asked(np.concatenate(targets), np.concatenate(same))

    def logits(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Start and end logits, float32 [B, L], of tokens [B, L]."""
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if self.window.types is not None:
            inputs["token_type_ids"] = torch.from_numpy(self.window.types).to(self.device).expand_as(ids)
        with arithmetic(self.device, self.settings.bfloat16):
            output = self.network(**inputs)
        return output.start_logits.float(), output.end_logits.float()

    def _same(self, start: torch.Tensor, end: torch.Tensor) -> Bools:
        """Whether the best span of the paragraph, or "no answer" where that was it, is the predicted one."""
        window = self.window
        outside = torch.from_numpy(window.chars[:, 0] < 0).to(self.device)
        first, last = (each.masked_fill(outside, -torch.inf) for each in (start, end))
        length = first.shape[1]
        best = torch.full((len(first),), -torch.inf, device=self.device)
        for tokens in range(min(self.settings.max_answer_tokens, length)):
            best = torch.maximum(best, (first[:, : length - tokens] + last[:, tokens:]).amax(1))
        if window.span is None:
            return (start[:, 0] + end[:, 0] >= best).cpu().numpy()
        return (first[:, window.start] + last[:, window.end] >= best).cpu().numpy()


def explain(
    subject: Subject, null: Any, chosen: Sequence[int], others: Sequence[Sequence[int]], against: Container[int],
    worded: Container[int], settings: Settings, progress: Callable[[], None],
) -> list[Arrays]:  # fmt: skip
    """Explains the answers to some questions of the validation split.

    Args:
        subject: the model.
        null: the same architecture at random weights.
        chosen: positions of the questions.
        others: for each, positions of questions to ask in its place.
        against: those that the random weights are asked about too.
        worded: those whose words are explained too.
        settings: of the explanation.
        progress: called after each.

    Returns:
        For each question, with k = 1 + its sentences: `values` [k] exact (the question first), `coalitions` [2**k] of the
        target, `same` [2**k], `sentences` [k - 1, 2] their characters, `answer` the group with the answer (-1: none of
        them), `null` [k] of the random weights if they were asked, `gradients` [k], `asked` [R] target with other questions, `words` [w] and
        `word_chars` [w, 3] (0 question, 1 paragraph; first, last + 1), `span` [2] (-1: no answer), `confidence`, `correct`, `cluster` (its
        document).
    """
    reader, found = Reader(subject), []
    for index, others_of in zip(chosen, others, strict=True):
        found.append(
            _one(subject, reader, null if index in against else None, index, others_of, index in worded, settings)
        )
        progress()
    return found


def _one(
    subject: Subject, reader: Reader, null: Any, index: int, others: Sequence[int], worded: bool, settings: Settings
) -> Arrays:
    examples = subject.data.examples
    question, context = examples.question(index), examples.context(index)
    window = find(subject, reader, question, context, settings)
    view = View(subject.network, window, reader.hidden, settings, subject.device)
    low, high = int(window.chars[window.chars[:, 0] >= 0][0, 0]), int(window.chars[:, 1].max())
    parts = sentences(context, low, high, settings.sentences)
    group = np.full(len(window.ids), -1)
    group[window.asked] = 0
    middle = window.chars.mean(axis=1)
    for number, (first, last) in enumerate(parts):
        group[(window.chars[:, 0] >= 0) & (middle >= first) & (middle < last)] = number + 1
    players = len(parts) + 1
    hidden = hides(group, ~shapley.coalitions(players))
    asked = view.ask(hidden)
    values = shapley.exact(asked.target)
    strange = View(null, window, reader.hidden, settings, subject.device) if null is not None else None
    answer, text = -1, "" if window.span is None else context[slice(*window.span)]
    gold = answers.golds(examples, index)
    if window.span is not None:
        answer = next((n for n, (a, b) in enumerate(parts) if a <= window.span[0] < b), -1)
    swapped = [_asked_instead(subject, reader, window, examples.question(other), context, settings) for other in others]
    words, places = np.empty(0), np.empty((0, 3), np.int64)
    if worded:
        words, places = _words(view, reader, question, group, values, parts, context, index)
    return {
        "values": values,
        "coalitions": asked.target,
        "same": asked.same,
        "sentences": np.array(parts, np.int64),
        "answer": np.array(answer),
        **({"null": shapley.exact(strange.ask(hidden).target)} if strange else {}),
        "gradients": gradients.of_groups(view, group, players),
        "asked": np.array(swapped),
        "words": words,
        "word_chars": places,
        "span": np.array(window.span or (-1, -1), np.int64),
        "confidence": np.array(window.confidence),
        "correct": np.array(squad_metrics.score(text, gold, no_answer=reader.no_answer).f1 >= RIGHT),
        "cluster": np.array(examples.document(index)),
    }


def hides(group: npt.NDArray[np.int64], missing: Bools) -> Bools:
    """Tokens [E, L] that are hidden while groups [E, k] are missing; tokens of no group (-1) never are."""
    return np.asarray(np.where(group >= 0, missing[:, group], False))


def sentences(context: str, low: int, high: int, most: int) -> list[tuple[int, int]]:
    """The sentences of a part of a paragraph, as characters; neighbours are joined where there are more than `most`.

    The shortest is joined to its shorter neighbour first.

    Args:
        context: the paragraph.
        low: first character of the part.
        high: character after its last.
        most: sentences, at least 1.
    """
    ends = [match.end() for match in _END.finditer(context, low, high) if match.end() < high]
    edges = [low, *ends, high]
    while len(edges) - 1 > most:
        lengths = np.diff(edges)
        shortest = int(lengths.argmin())
        left = lengths[shortest - 1] if shortest else np.inf
        right = lengths[shortest + 1] if shortest + 1 < len(lengths) else np.inf
        del edges[shortest if left <= right else shortest + 1]
    return list(pairwise(edges))


def find(subject: Subject, reader: Reader, question: str, context: str, settings: Settings) -> Window:
    """The model's answer, and the window in which it finds it."""
    windows = reader.windows(question, context)
    pairs = [_scores(subject, reader, windows, number, settings) for number in range(len(windows))]
    k = max(min(N_BEST, len(start)) for start, _ in pairs)
    starts, ends = (zip(*(_top(pair[side], k) for pair in pairs), strict=True) for side in (0, 1))
    values, positions = (np.stack(each) for each in starts)
    end_values, end_positions = (np.stack(each) for each in ends)
    null = np.array([start[0] + end[0] for start, end in pairs], np.float32)
    candidates = Candidates(values, positions, end_values, end_positions, null)
    found = answers.find(
        windows, candidates, 1, max_answer_tokens=settings.max_answer_tokens, no_answer=reader.no_answer
    )
    span = found.span(0) if found.answered[0] else None
    listed = found.n_best(0, context)
    said = next((each for each in listed if (each["start"], each["end"]) == (span or (None, None))), None)
    number, start, end = _place(windows, pairs, span)
    tokens = slice(windows.offsets[number], windows.offsets[number + 1])
    chars = np.asarray(windows.chars[tokens], np.int64)
    ids = np.asarray(windows.tokens[tokens], np.int64)
    before, between = len(reader.encoder.before), len(reader.encoder.between)
    position, paragraph = np.arange(len(ids)), int(np.flatnonzero(chars[:, 0] >= 0)[0])
    asked = (position >= before) & (position < paragraph - between)
    takes_types = reader.uses_types and "token_type_ids" in reader.inputs
    types = np.asarray(windows.types[tokens], np.int64) if takes_types else None
    return Window(ids, types, chars, asked, start, end, span, float(said["probability"]) if said else 0.0)


def _scores(subject: Subject, reader: Reader, windows: Windows, number: int, settings: Settings) -> tuple[Any, Any]:
    """Start and end logits [L] of a window."""
    batch, length = windows.batch([number]), int(windows.lengths[number])
    names = [
        name for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch and name in reader.inputs
    ]
    inputs = {name: torch.from_numpy(batch[name][:, :length]).to(subject.device) for name in names}
    with arithmetic(subject.device, settings.bfloat16):
        output = subject.network(**inputs)
    return output.start_logits[0].float().cpu().numpy(), output.end_logits[0].float().cpu().numpy()


def _top(logits: Any, k: int) -> tuple[Any, Any]:
    order = np.argsort(-logits, kind="stable")[:k]
    missing = k - len(order)
    return (
        np.pad(logits[order], (0, missing), constant_values=-np.inf).astype(np.float32),
        np.pad(order, (0, missing), constant_values=-1),
    )


def _place(windows: Windows, pairs: Sequence[tuple[Any, Any]], span: tuple[int, int] | None) -> tuple[int, int, int]:
    """The window with the highest score for a span of characters, and its tokens there; the first tokens for no span."""
    if span is None:
        number = int(np.argmin([start[0] + end[0] for start, end in pairs]))
        return number, 0, 0
    best: tuple[float, tuple[int, int, int]] = (-np.inf, (0, 0, 0))
    for number, (start, end) in enumerate(pairs):
        chars = windows.chars[windows.offsets[number] : windows.offsets[number + 1]]
        first, last = np.flatnonzero(chars[:, 0] == span[0]), np.flatnonzero(chars[:, 1] == span[1])
        if len(first) and len(last):
            score = float(start[first[0]] + end[last[-1]])
            best = max(best, (score, (number, int(first[0]), int(last[-1]))))
    return best[1]


def _asked_instead(
    subject: Subject, reader: Reader, window: Window, question: str, context: str, settings: Settings
) -> float:
    """The target, of the same answer, with another question; NaN where the longer question pushes the answer out."""
    windows = reader.windows(question, context)
    pairs = [_scores(subject, reader, windows, number, settings) for number in range(len(windows))]
    number, first, last = _place(windows, pairs, window.span)
    if window.span is not None and not last:
        return np.nan
    start, end = (torch.from_numpy(each).log_softmax(0) for each in pairs[number])
    return float(start[first] + end[last])


def _words(
    view: View, reader: Reader, question: str, group: npt.NDArray[np.int64], values: Any,
    parts: Sequence[tuple[int, int]], context: str, index: int,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:  # fmt: skip
    """Values of the words of the question and of the sentence that says most, while all else is shown."""
    window, sentence = view.window, int(np.abs(values[1:]).argmax())
    places = [(0, *match.span()) for match in _WORD.finditer(question)]
    places += [(1, *match.span()) for match in _WORD.finditer(context, *parts[sentence])]
    owner = np.full(len(window.ids), -1)
    asked = np.flatnonzero(window.asked)
    offsets = reader.question(question, len(asked))
    for number, (where, first, last) in enumerate(places):
        if where == 0:
            owner[asked[(offsets[:, 0] < last) & (offsets[:, 1] > first)]] = number
        else:
            within = (window.chars[:, 0] >= 0) & (window.chars[:, 0] < last) & (window.chars[:, 1] > first)
            owner[within & (group == sentence + 1)] = number
    kept = np.unique(owner[owner >= 0])[:WORDS]
    if len(kept) < 2:
        return np.empty(0), np.empty((0, 3), np.int64)
    rank = np.full(len(places) + 1, -1)  # one more: no word (-1) has no rank
    rank[kept] = np.arange(len(kept))
    seed = hash_of(view.settings.seed, zlib.crc32(str(index).encode()))
    plan = shapley.permutations(len(kept), 1, seed)
    found = plan.shapley(view.ask(hides(rank[owner], ~plan.masks)).target)
    return found, np.array([places[number] for number in kept], np.int64)
