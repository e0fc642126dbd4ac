"""Explanations of text classifications: which parts of a text speak for the predicted class."""

import itertools
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from config.ranges import Range
from datamodules.text.encoding import TextEncoder
from explain import shapley, token_gradients, tokens
from explain.model import Subject, inference_context
from explain.sample import Chunk, example_seed
from trainers import inference

Arrays = dict[str, npt.NDArray[Any]]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Span = tuple[int, int]  # characters: first, last + 1
TEXT, PAIR = 0, 1  # the sources of tokens; -1: structure


@dataclass(frozen=True)
class Settings:
    """What decides the values; conf/explain says what each does."""

    sentences: Annotated[int, Range(low=1, high=10)]
    other_texts: Annotated[int, Range(low=1, high=100)]
    batch_size: int
    seed: int
    bfloat16: bool


@dataclass(frozen=True)
class ExtraSettings:
    """What else is explained; conf/explain says what each does."""

    words: Annotated[int, Range(low=0, high=10**6)]


@dataclass(frozen=True)
class Input:
    """A text, or a pair of texts, as the network gets it: cut to the longest input.

    Attributes:
        ids: [L] tokens.
        types: [L] token types; None if the model takes none.
        source: [L] `TEXT`, `PAIR`, or -1 for structure tokens.
        chars: [L, 2] characters of each token in its source.
    """

    ids: Ints
    types: Ints | None
    source: Ints
    chars: Ints

    def extent(self, source: int) -> Span:
        """The characters of a source that have tokens; 0, 0 if none have."""
        chars = self.chars[self.source == source]
        return (int(chars[:, 0].min()), int(chars[:, 1].max())) if len(chars) else (0, 0)


class InputEncoder:
    """How a model's texts become tokens."""

    def __init__(self, subject: Subject) -> None:
        """Opens the tokenizer of the data module, which is the model's."""
        data = subject.data
        self.tokenizer = TextEncoder(data.prepared_tokenizer, data.max_length).tokenizer
        self.uses_types = data.uses_types
        self.hidden = tokens.mask_token(data.tokenizer())

    def read(self, text: str, pair: str) -> Input:
        """A text, and the second one of a pair ("" if there is none)."""
        encoding = self.tokenizer.encode(text, pair) if pair else self.tokenizer.encode(text)
        source = [-1 if number is None else number for number in encoding.sequence_ids]
        types = np.array(encoding.type_ids, np.int64) if self.uses_types else None
        chars = np.array(encoding.offsets, np.int64).reshape(-1, 2)
        return Input(np.array(encoding.ids, np.int64), types, np.array(source, np.int64), chars)


class View(tokens.View):
    """One text, with some tokens masked."""

    def __init__(self, network: Any, text: Input, mask_id: int, settings: Settings, device: torch.device) -> None:
        """Takes a text, and lets the network classify the whole of it; arguments as of `tokens.View`."""
        super().__init__(network, text.ids, text.types, mask_id, settings, device)
        with inference_context(device, settings.bfloat16):
            logits = self.outputs(self.batch(input_ids=torch.from_numpy(text.ids).to(device)[None]))
        self.predicted = int(logits[0].argmax())

    def outputs(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits, float32 [B, C]."""
        return inference.text_logits(self.network, batch)

    def target(self, outputs: Tensor) -> Tensor:
        """[B] log-probability of the class that the network predicts for the whole."""
        return outputs.log_softmax(1)[:, self.predicted]

    def same(self, outputs: Tensor) -> Tensor:
        """Whether that class is still the most probable one."""
        return outputs[:, self.predicted] >= outputs.amax(1)


def explain(
    subject: Subject, null: Any, chunk: Chunk, settings: Settings, progress: Callable[[], None]
) -> list[Arrays]:
    """Explains the classes of some texts of the validation split.

    Args:
        subject: the model.
        null: the same architecture at random weights.
        chunk: the texts; its `others` are texts to put in the place of each.
        settings: of the explanation.
        progress: called after each.

    Returns:
        For each text, with k parts of it (the second text of a pair is the last of them): `values` [k] exact, `coalitions` [2**k]
        of the target, `same` [2**k], `parts` [k, 3] (`TEXT` or `PAIR`; characters), `null` [k] and `null_coalitions` [2**k] of the
        random weights if they were asked, `gradients` [k], `asked` [R] target with other texts, `words` [w] and `word_chars` [w, 3]
        (`TEXT` or `PAIR`; characters), `predicted`, `label`, `confidence`, `correct`, `cluster` (its class), `length` in words.
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
    texts, device = subject.data.texts("val"), subject.device
    sources = (texts.text(index), texts.pair(index))
    text = reader.read(*sources)
    view = View(subject.network, text, reader.hidden, settings, device)
    places = parts(text, sources, settings.sentences)
    group = groups(text, places)
    hidden = tokens.hide_groups(group, ~shapley.all_coalitions(len(places)))
    response = view.ask(hidden)
    values = shapley.exact_values(response.target)
    random: Arrays = {}
    if null is not None:
        coalitions = View(null, text, reader.hidden, settings, device).ask(hidden).target
        random = {"null": shapley.exact_values(coalitions), "null_coalitions": coalitions}
    words, word_chars = np.empty(0), np.empty((0, 3), np.int64)
    if worded:
        strongest = places[int(np.abs(values).argmax())]
        seed = example_seed(settings.seed, zlib.crc32(texts.id(index).encode("utf-8", "surrogateescape")))
        words, word_chars = _words(view, text, sources, strongest, seed)
    label = texts.label(index)
    return {
        "values": values,
        "coalitions": response.target,
        "same": response.same,
        "parts": np.array(places, np.int64),
        **random,
        "gradients": token_gradients.integrated_gradients(view, group, len(places)),
        "asked": np.array(
            [_target_of(view, reader, texts.text(other), texts.pair(other)) for other in others], np.float64
        ),
        "words": words,
        "word_chars": word_chars,
        "predicted": np.array(view.predicted),
        "label": np.array(label),
        "confidence": np.array(np.exp(response.target[-1])),
        "correct": np.array(label == view.predicted),
        "cluster": np.array(label),
        "length": np.array(sum(len(source.split()) for source in sources)),
    }


def parts(text: Input, sources: Sequence[str], most: int) -> list[tuple[int, int, int]]:
    """The parts of a text: its sentences, and the second text of a pair as one.

    A text of one sentence is cut into as many runs of about as many words.

    Args:
        text: the input; what was cut off from it is in no part.
        sources: the text, and the second one.
        most: parts of the first text.

    Returns:
        (source, first character, last + 1) of each; at least one.
    """
    low, high = text.extent(TEXT)
    spans = tokens.split_sentences(sources[TEXT], low, high, most)
    if len(spans) == 1:
        words = tokens.split_words(sources[TEXT], low, high)
        count = max(1, min(most, len(words)))
        edges = [low, *(words[len(words) * number // count][0] for number in range(1, count)), high]
        spans = list(itertools.pairwise(edges))
    places = [(TEXT, *span) for span in spans]
    return [*places, (PAIR, *text.extent(PAIR))] if (text.source == PAIR).any() else places


def groups(text: Input, places: Sequence[tuple[int, int, int]]) -> Ints:
    """The part [L] that each token belongs to; -1 for structure tokens."""
    group = np.full(len(text.ids), -1)
    middle = text.chars.mean(axis=1)
    for number, (source, first, last) in enumerate(places):
        group[(text.source == source) & (middle >= first) & (middle <= last) & (group < 0)] = number
    return group


def _target_of(view: View, reader: InputEncoder, text: str, pair: str) -> float:
    """The target, of the same class, for another text."""
    other = reader.read(text, pair)
    batch = {"input_ids": other.ids, "attention_mask": np.ones_like(other.ids)}
    if other.types is not None:
        batch["token_type_ids"] = other.types
    with inference_context(view.device, view.settings.bfloat16):
        outputs = view.outputs({name: torch.from_numpy(row).to(view.device)[None] for name, row in batch.items()})
    return float(view.target(outputs)[0])


def _words(
    view: View, text: Input, sources: Sequence[str], strongest: tuple[int, int, int], seed: int
) -> tuple[Floats, Ints]:
    """Values of the words while all else is shown: of all of them if they are few, else of the part that says most."""
    places = [
        (source, *span) for source in (TEXT, PAIR) for span in tokens.split_words(sources[source], *text.extent(source))
    ]
    if len(places) > tokens.WORDS:
        source, low, high = strongest
        places = [(source, *span) for span in tokens.split_words(sources[source], low, high)]
    owner = np.full(len(text.ids), -1)
    for number, (source, first, last) in enumerate(places):
        owner[(text.source == source) & (text.chars[:, 0] < last) & (text.chars[:, 1] > first)] = number
    values, kept = tokens.word_values(view, owner, len(places), seed)
    return values, np.array([places[number] for number in kept], np.int64).reshape(-1, 3)
