"""Explanations of text classifications: values of the parts of a text for the predicted class."""

import itertools
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from config.ranges import Range
from datamodules.text.encoding import TextEncoder
from explain import tokens
from explain.model import Subject, inference_context
from explain.sample import Chunk, example_seed
from explain.tokens import Arrays, Ints, SourceSpan, Span
from trainers import inference

TEXT, PAIR = 0, 1  # the source texts of tokens; -1: structure tokens


@dataclass(frozen=True)
class Settings:
    """Settings that the values depend on; conf/explain describes them."""

    sentences: Annotated[int, Range(low=1, high=10)]
    other_texts: Annotated[int, Range(low=1, high=100)]
    batch_size: int
    seed: int
    bfloat16: bool


@dataclass(frozen=True)
class Input:
    """A text, or a pair of texts, as the input of a network, truncated to its longest input.

    Attributes:
        ids: [L] tokens.
        types: [L] token types; None if the model has none.
        source: [L] `TEXT`, `PAIR`, or -1 for structure tokens.
        chars: [L, 2] characters of each token in its source.
    """

    ids: Ints
    types: Ints | None
    source: Ints
    chars: Ints

    def extent(self, source: int) -> Span:
        """Return the span of a source that has tokens; 0, 0 if none has."""
        chars = self.chars[self.source == source]
        return (int(chars[:, 0].min()), int(chars[:, 1].max())) if len(chars) else (0, 0)


class InputEncoder:
    """Encodes texts as inputs of the model."""

    def __init__(self, subject: Subject) -> None:
        """Open the tokenizer of the data module, which is the model's."""
        data = subject.data
        self.tokenizer = TextEncoder(data.prepared_tokenizer, data.max_length).tokenizer
        self.uses_types = data.uses_types
        self.mask_id = tokens.mask_token(data.tokenizer())

    def encode(self, text: str, pair: str) -> Input:
        """Encode a text and the second one of a pair ("" without one)."""
        encoding = self.tokenizer.encode(text, pair) if pair else self.tokenizer.encode(text)
        source = [-1 if number is None else number for number in encoding.sequence_ids]
        types = np.array(encoding.type_ids, np.int64) if self.uses_types else None
        chars = np.array(encoding.offsets, np.int64).reshape(-1, 2)
        return Input(np.array(encoding.ids, np.int64), types, np.array(source, np.int64), chars)


class View(tokens.View):
    """One text in which tokens can be masked."""

    def __init__(self, network: Any, text: Input, mask_id: int, settings: Settings, device: torch.device) -> None:
        """Initialise the view and classify the whole text; see `tokens.View` for the arguments."""
        super().__init__(network, text.ids, text.types, mask_id, settings, device)
        with inference_context(device, settings.bfloat16):
            logits = self.outputs(self.batch(input_ids=torch.from_numpy(text.ids).to(device)[None]))
        self.predicted = int(logits[0].argmax())

    def outputs(self, batch: dict[str, Tensor]) -> Tensor:
        """Return logits, float32 [B, C]."""
        return inference.text_logits(self.network, batch)

    def target(self, outputs: Tensor) -> Tensor:
        """Return the log-probability [B] of the class that is predicted for the whole text."""
        return outputs.log_softmax(1)[:, self.predicted]

    def unchanged(self, outputs: Tensor) -> Tensor:
        """Return bool [B], whether that class is still the most probable one."""
        return outputs[:, self.predicted] >= outputs.amax(1)


def explain(
    subject: Subject, null: Any, chunk: Chunk, settings: Settings, progress: Callable[[], None]
) -> list[Arrays]:
    """Explain the classes of some texts of the validation split.

    Args:
        subject: the model.
        null: the same architecture with random weights.
        chunk: the texts, with replacements.
        settings: of the explanation.
        progress: called after each.

    Returns:
        For each text: the arrays of `tokens.explain_groups` for its k parts (a second text is the last part), `parts` [k, 3]
        (`TEXT` or `PAIR`; characters), `asked` [R], the target of the replacements, the arrays of `tokens.word_values`
        (`TEXT` or `PAIR`), `predicted`, `label`, `confidence`, `correct`, `cluster` (its class), `length` in words.
    """
    encoder, rows = InputEncoder(subject), []
    for index in range(len(chunk.positions)):
        rows.append(_explain_text(subject, encoder, null, chunk, index, settings))
        progress()
    return rows


def _explain_text(
    subject: Subject, encoder: InputEncoder, null: Any, chunk: Chunk, index: int, settings: Settings
) -> Arrays:
    position = chunk.positions[index]
    texts, mask_id, device = subject.data.texts("val"), encoder.mask_id, subject.device
    sources = (texts.text(position), texts.pair(position))
    text = encoder.encode(*sources)
    view = View(subject.network, text, mask_id, settings, device)
    null_view = None if position not in chunk.null else View(null, text, mask_id, settings, device)
    spans = parts(text, sources, settings.sentences)
    arrays = tokens.explain_groups(view, null_view, groups(text, spans), len(spans))
    words: list[SourceSpan] = []
    if position in chunk.words:
        words = [
            (source, *span)
            for source in (TEXT, PAIR)
            for span in tokens.split_words(sources[source], *text.extent(source))
        ]
        if len(words) > tokens.MAX_WORDS:  # those of the strongest part
            source, low, high = spans[int(np.abs(arrays["values"]).argmax())]
            words = [(source, *span) for span in tokens.split_words(sources[source], low, high)]
    seed = example_seed(settings.seed, zlib.crc32(texts.id(position).encode("utf-8", "surrogateescape")))
    replaced = [
        _replaced_target(view, encoder, texts.text(other), texts.pair(other)) for other in chunk.replacements[index]
    ]
    label = texts.label(position)
    return {
        **arrays,
        "parts": np.array(spans, np.int64),
        "asked": np.array(replaced, np.float64),
        **tokens.word_values(view, text.source, text.chars, words, seed),
        "predicted": np.array(view.predicted),
        "label": np.array(label),
        "confidence": np.array(np.exp(arrays["coalitions"][-1])),
        "correct": np.array(label == view.predicted),
        "cluster": np.array(label),
        "length": np.array(sum(len(source.split()) for source in sources)),
    }


def parts(text: Input, sources: Sequence[str], most: int) -> list[SourceSpan]:
    """Split a text into parts: its sentences, and the second text of a pair as one.

    A text of one sentence is split into runs of about equally many words.

    Args:
        text: the input; truncated characters are in no part.
        sources: the text, and the second one.
        most: maximal number of parts of the first text.

    Returns:
        At least one part.
    """
    low, high = text.extent(TEXT)
    spans = tokens.split_sentences(sources[TEXT], low, high, most)
    if len(spans) == 1:
        words = tokens.split_words(sources[TEXT], low, high)
        count = max(1, min(most, len(words)))
        edges = [low, *(words[len(words) * number // count][0] for number in range(1, count)), high]
        spans = list(itertools.pairwise(edges))
    result = [(TEXT, *span) for span in spans]
    return [*result, (PAIR, *text.extent(PAIR))] if (text.source == PAIR).any() else result


def groups(text: Input, spans: Sequence[SourceSpan]) -> Ints:
    """Return the part [L] of each token; -1 for structure tokens."""
    group = np.full(len(text.ids), -1)
    middle = text.chars.mean(axis=1)
    for number, (source, first, last) in enumerate(spans):
        group[(text.source == source) & (middle >= first) & (middle <= last) & (group < 0)] = number
    return group


def _replaced_target(view: View, encoder: InputEncoder, text: str, pair: str) -> float:
    """Return the target of another text, for the same class."""
    replacement = encoder.encode(text, pair)
    batch = {"input_ids": replacement.ids, "attention_mask": np.ones_like(replacement.ids)}
    if replacement.types is not None:
        batch["token_type_ids"] = replacement.types
    with inference_context(view.device, view.settings.bfloat16):
        outputs = view.outputs({name: torch.from_numpy(row).to(view.device)[None] for name, row in batch.items()})
    return float(view.target(outputs)[0])
