"""A reader's answer to a question, and its response while tokens are hidden."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from config.ranges import Range
from datamodules.text.windows import Limits, PairEncoder, Windows
from explain import tokens
from explain.model import Subject, inference_context
from explain.tokens import Bools, Ints, Span
from trainers import answer_scores, inference
from trainers.spans import best_spans, merge_candidates

Logits = tuple[Tensor, Tensor]  # of starts and of ends


@dataclass(frozen=True)
class Settings:
    """Settings that the values depend on; conf/explain and conf/model describe them."""

    sentences: Annotated[int, Range(low=1, high=10)]
    max_answer_tokens: int
    other_questions: Annotated[int, Range(low=1, high=100)]
    batch_size: int
    seed: int
    bfloat16: bool
    n_best: int = 20


@dataclass(frozen=True)
class Window:
    """A question and the part of its paragraph with the predicted answer, as one input.

    Attributes:
        ids: [L] tokens.
        types: [L] token types; None if the model has none.
        chars: [L, 2] characters of each token in the paragraph, -1 outside it.
        question_mask: bool [L], tokens of the question.
        start, end: tokens of the predicted answer; 0, 0 for "no answer".
        span: its characters; None for "no answer".
        confidence: probability of the answer among the n best.
    """

    ids: Ints
    types: Ints | None
    chars: Ints
    question_mask: Bools
    start: int
    end: int
    span: Span | None
    confidence: float


class InputEncoder:
    """Encodes questions and paragraphs as inputs of the model."""

    def __init__(self, subject: Subject) -> None:
        """Open the tokenizer of the data module, which is the model's."""
        data = subject.data
        self.encoder = PairEncoder(data.prepared_tokenizer.folder / "tokenizer.json")
        self.limits: Limits = data.limits
        self.pad_id, self.uses_types = data.pad_id, data.uses_types
        self.no_answer = not data.answerable_only
        self.mask_id = tokens.mask_token(data.tokenizer())

    def windows(self, question: str, context: str) -> Windows:
        """Return the windows of a question and its paragraph."""
        return Windows.of_records(self.encoder, [(question, context)], self.limits, self.pad_id, self.uses_types)

    def question_offsets(self, text: str, count: int) -> Ints:
        """Return the characters [count, 2] of the first tokens of a question."""
        stripped = text.lstrip()  # as in windows
        return np.asarray(self.encoder.encode([stripped])[1][:count], np.int64) + len(text) - len(stripped)


class View(tokens.View):
    """One window in which tokens can be masked."""

    settings: Settings

    def __init__(self, network: Any, window: Window, mask_id: int, settings: Settings, device: torch.device) -> None:
        """Initialise the view; see `tokens.View` for the arguments."""
        super().__init__(network, window.ids, window.types, mask_id, settings, device)
        self.window = window

    def outputs(self, batch: dict[str, Tensor]) -> Logits:
        """Return start and end logits, float32 [B, L]."""
        return inference.span_logits(self.network, batch)

    def target(self, outputs: Logits) -> Tensor:
        """Return the log-probability [B] of start and end of the answer that is predicted for the whole window."""
        start, end = outputs
        return start.log_softmax(1)[:, self.window.start] + end.log_softmax(1)[:, self.window.end]

    def unchanged(self, outputs: Logits) -> Tensor:
        """Return bool [B], whether the best span of the paragraph, or "no answer", is the predicted answer.

        As in prediction, spans are pairs of the `n_best` starts and ends.
        """
        window, (start, end) = self.window, outputs
        outside = torch.from_numpy(window.chars[:, 0] < 0).to(self.device)
        length = start.shape[1]
        count = min(self.settings.n_best, length)
        first, last = (
            logits.masked_fill(outside | (logits < logits.topk(count).values[:, -1:]), -torch.inf)
            for logits in (start, end)
        )
        best = torch.full((len(first),), -torch.inf, device=self.device)
        for distance in range(min(self.settings.max_answer_tokens, length)):
            best = torch.maximum(best, (first[:, : length - distance] + last[:, distance:]).amax(1))
        if window.span is None:
            return start[:, 0] + end[:, 0] >= best
        score = first[:, window.start] + last[:, window.end]
        return (score >= best) & (score > -torch.inf)


def find_window(subject: Subject, encoder: InputEncoder, question: str, context: str, settings: Settings) -> Window:
    """Predict the answer to a question, and return the window with the highest score for it."""
    windows = encoder.windows(question, context)
    logits = window_logits(subject, windows, settings)
    candidates = [
        (np.array([number]), inference.top_candidates(*pair, settings.n_best)) for number, pair in enumerate(logits)
    ]
    answers = best_spans(
        windows,
        merge_candidates(candidates)[1],
        1,
        n_best=settings.n_best,
        max_answer_tokens=settings.max_answer_tokens,
        no_answer=encoder.no_answer,
    )
    span = answers.span(0) if answers.answered[0] else None
    confidence = answer_scores.answer_fields(answers, 0, encoder.no_answer)["probability"]
    number, start, end = locate_span(windows, logits, span)
    inside = slice(windows.offsets[number], windows.offsets[number + 1])
    chars = np.asarray(windows.chars[inside], np.int64)
    ids = np.asarray(windows.tokens[inside], np.int64)
    before, between = len(encoder.encoder.before), len(encoder.encoder.between)
    position, paragraph = np.arange(len(ids)), int(np.flatnonzero(chars[:, 0] >= 0)[0])
    question_mask = (position >= before) & (position < paragraph - between)
    types = np.asarray(windows.types[inside], np.int64) if encoder.uses_types else None
    return Window(ids, types, chars, question_mask, start, end, span, confidence)


def window_logits(subject: Subject, windows: Windows, settings: Settings) -> list[Logits]:
    """Return start and end logits [1, L] of each window."""
    result = []
    for number in range(len(windows)):
        length = int(windows.lengths[number])
        batch = {
            name: torch.from_numpy(array[:, :length]).to(subject.device)
            for name, array in windows.batch([number]).items()
            if name in inference.TEXT_INPUTS
        }
        with inference_context(subject.device, settings.bfloat16):
            result.append(inference.span_logits(subject.network, batch))
    return result


def locate_span(windows: Windows, logits: Sequence[Logits], span: Span | None) -> tuple[int, int, int]:
    """Return the window with the highest score for a span of characters, and its tokens; 0, 0 for no span."""
    if span is None:
        return int(np.argmin([float(start[0, 0] + end[0, 0]) for start, end in logits])), 0, 0
    best: tuple[float, tuple[int, int, int]] = (-np.inf, (0, 0, 0))
    for number, (start, end) in enumerate(logits):
        chars = windows.chars[windows.offsets[number] : windows.offsets[number + 1]]
        first, last = np.flatnonzero(chars[:, 0] == span[0]), np.flatnonzero(chars[:, 1] == span[1])
        if len(first) and len(last):
            score = float(start[0, first[0]] + end[0, last[-1]])
            best = max(best, (score, (number, int(first[0]), int(last[-1]))))
    return best[1]
