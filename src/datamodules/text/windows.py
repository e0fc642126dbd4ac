"""Questions and contexts as windows of tokens, with the span of the answer in each.

A window is `[CLS] question [SEP] part of the context [SEP]`, or the tokenizer's format of a pair. Contexts longer than a
window give several, which overlap by `stride` tokens. Every context is tokenised once for all its questions, and all
arithmetic is vectorised.
"""

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Self

import numpy as np

from config.errors import InputError
from datamodules.storage import arrays
from datamodules.storage.manifest import DamagedError
from datamodules.text.examples import Examples
from datamodules.text.token_arrays import Array, TokenArrays, open_writers
from datamodules.text.tokenizer import encoding_errors, short_text

logger = logging.getLogger(__name__)

FORMAT = 1  # part of the cache key: increment it when `write` writes anything else
CHUNK = 2048  # questions at a time


@dataclass(frozen=True)
class Limits:
    """Sizes in tokens.

    Attributes:
        max_length: of a window.
        stride: overlap of the windows of a context.
        max_query_length: of a question; longer ones are truncated.
    """

    max_length: int = 384
    stride: int = 128
    max_query_length: int = 64


class PairEncoder:
    """A tokenizer, with the special tokens by which it joins a question and a context.

    Attributes:
        tokenizer: of the tokenizers library, without truncation and padding.
        before: ids of the special tokens before the question.
        between: ids of those between the question and the context.
        after: ids of those after the context.
        types_before: token type ids of `before`; likewise `types_between` and `types_after`.
        question_type: token type id of questions.
        context_type: token type id of contexts.
    """

    def __init__(self, file: Path) -> None:
        """Load a tokenizer.

        Args:
            file: a `tokenizer.json`.

        Raises:
            InputError: pairs do not begin with a special token, which "no answer" would point to.
        """
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(file))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        text = short_text(self.tokenizer)
        pair = self.tokenizer.encode(text, text)
        sequence = np.array([-1 if number is None else number for number in pair.sequence_ids])
        first, second = np.flatnonzero(sequence == 0), np.flatnonzero(sequence == 1)
        ids, types = np.array(pair.ids), np.array(pair.type_ids)
        if not len(first) or not len(second) or first[0] == 0 or first[0] > second[0]:
            raise InputError(
                "this tokenizer puts no special token before a question and its context; use one like BERT's or "
                "RoBERTa's"
            )
        parts = slice(0, first[0]), slice(first[-1] + 1, second[0]), slice(second[-1] + 1, None)
        self.before, self.between, self.after = (ids[part] for part in parts)
        self.types_before, self.types_between, self.types_after = (types[part] for part in parts)
        self.question_type, self.context_type = int(types[first[0]]), int(types[second[0]])

    @property
    def special(self) -> int:
        """Number of special tokens of a window."""
        return len(self.before) + len(self.between) + len(self.after)

    def encode(self, texts: Sequence[str]) -> tuple[Array, Array, Array]:
        """Tokenise texts without special tokens, on all cores.

        Returns:
            ids [T], characters [T, 2] (first, last + 1) of each token in its text, offsets [len(texts) + 1] of the texts
            in both.
        """
        with encoding_errors():
            encodings = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        offsets = np.zeros(len(encodings) + 1, np.int64)
        np.cumsum([len(encoding) for encoding in encodings], out=offsets[1:])
        total = int(offsets[-1])
        ids = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int64, total)
        flat = chain.from_iterable(chain.from_iterable(encoding.offsets for encoding in encodings))
        return ids, np.fromiter(flat, np.int64, 2 * total).reshape(-1, 2), offsets

    def check(self, limits: Limits) -> None:
        """Check that limits leave room for the context beside the longest question.

        Raises:
            InputError: they do not, or are out of range.
        """
        room = limits.max_length - self.special - limits.max_query_length
        if room <= limits.stride or limits.stride < 0 or limits.max_query_length < 1:
            raise InputError(
                f"data.max_length={limits.max_length} leaves {room} tokens for the context beside a "
                f"data.max_query_length={limits.max_query_length}: data.stride must be from 0 to less than "
                f"that, not {limits.stride}"
            )


def make_windows(
    encoder: PairEncoder,
    questions: Sequence[str],
    contexts: Sequence[str],
    context_of: Array,
    spans: Array,
    limits: Limits,
) -> dict[str, Array]:
    """Make the windows of some questions.

    Args:
        encoder: the tokenizer.
        questions: [N] texts, whose leading white space is removed, as transformers' run_qa.py does: tokens of byte-level
            tokenizers depend on it.
        contexts: [C] texts.
        context_of: [N] index of each question's context.
        spans: [N, 2] characters (first, last + 1) of each question's answer in its context; -1 without one.
        limits: sizes; see `PairEncoder.check`.

    Returns:
        The arrays of `Windows` by name, `example` counting from 0; and `cut` [N]: whether the question was truncated.
    """
    question_tokens, _, question_offsets = encoder.encode([question.lstrip() for question in questions])
    context_tokens, context_chars, context_offsets = encoder.encode(contexts)
    context_of = np.asarray(context_of, np.int64)
    before, between, after = len(encoder.before), len(encoder.between), len(encoder.after)

    # The number of windows of each question, and the part of its context in each window.
    question_length = np.minimum(np.diff(question_offsets), limits.max_query_length)
    room = limits.max_length - encoder.special - question_length
    context_length = np.diff(context_offsets)[context_of]
    step = room - limits.stride
    count = 1 + -(np.minimum(room - context_length, 0) // step)
    example = np.repeat(np.arange(len(questions)), count)
    begin = (arrays.ragged_indices(np.zeros(len(count)), count)) * step[example]
    part = np.minimum(room[example], context_length[example] - begin)
    first = context_offsets[context_of[example]] + begin  # the window's first token in `context_tokens`

    # Each assignment fills one kind of token in all windows.
    question_length = question_length[example]
    size = encoder.special + question_length + part
    offsets = np.concatenate(([0], np.cumsum(size)))
    window_start = offsets[:-1]
    total = int(offsets[-1])
    tokens = np.empty(total, np.int64)
    types = np.empty(total, np.uint8)
    chars = np.full((total, 2), -1, np.int32)
    for position, special_ids, special_types in (
        (window_start, encoder.before, encoder.types_before),
        (window_start + before + question_length, encoder.between, encoder.types_between),
        (offsets[1:] - after, encoder.after, encoder.types_after),
    ):
        for shift, (token, token_type) in enumerate(zip(special_ids, special_types, strict=True)):
            tokens[position + shift], types[position + shift] = token, token_type
    target = arrays.ragged_indices(window_start + before, question_length)
    tokens[target] = question_tokens[arrays.ragged_indices(question_offsets[example], question_length)]
    types[target] = encoder.question_type
    head = before + question_length + between
    target, source = arrays.ragged_indices(window_start + head, part), arrays.ragged_indices(first, part)
    tokens[target], chars[target] = context_tokens[source], context_chars[source]
    types[target] = encoder.context_type

    start, end = _answer_tokens(
        context_chars, context_offsets, context_of[example], np.asarray(spans)[example], first, part
    )
    inside = start >= 0
    return {
        "tokens": tokens,
        "types": types,
        "chars": chars,
        "offsets": offsets,
        "example": example,
        "start": np.where(inside, start - first + head, 0),
        "end": np.where(inside, end - first + head, 0),
        "cut": np.diff(question_offsets) > limits.max_query_length,
    }


def _answer_tokens(
    chars: Array, offsets: Array, context: Array, spans: Array, first: Array, part: Array
) -> tuple[Array, Array]:
    """First and last token of each window's answer, among all context tokens; -1 for an answer that is not inside.

    As in the question-answering recipe of Hugging Face: the last token that begins no later than the answer, and
    the first that ends no earlier. Unlike the recipe's loops, the result is never outside of the window if the answer is
    its last token, and does not end before it starts if the answer is one character of several tokens.
    """
    start = np.full(len(first), -1, np.int64)
    end = start.copy()
    w = np.flatnonzero((spans[:, 0] >= 0) & (part > 0))
    if not len(w):
        return start, end
    low, high, last = spans[w, 0].astype(np.int64), spans[w, 1].astype(np.int64), (first + part - 1)[w]
    # One sorted array for all contexts: the upper half of a number is the context, the lower half the character.
    token_base = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)) << 32
    begins = np.maximum.accumulate(token_base + chars[:, 0])
    ends = np.minimum.accumulate((token_base + chars[:, 1])[::-1])[::-1]
    base = context[w] << 32
    from_token = np.searchsorted(begins, base + low, side="right") - 1
    to_token = np.searchsorted(ends, base + high, side="left")
    inside = (chars[first[w], 0] <= low) & (chars[last, 1] >= high)
    from_token, to_token = np.minimum(from_token, last), np.maximum(to_token, first[w])
    start[w] = np.where(inside, np.minimum(from_token, to_token), -1)
    end[w] = np.where(inside, np.maximum(from_token, to_token), -1)
    return start, end


def write(folder: Path, examples: Examples, tokenizer: Path, vocab_size: int, limits: Limits, training: bool) -> None:
    """Write the windows of a split into a cache entry, chunk by chunk.

    Args:
        folder: the entry that is being built.
        examples: the split.
        tokenizer: a `tokenizer.json`.
        vocab_size: determines whether token ids take two bytes or four.
        limits: sizes.
        training: exclude questions of which no answer has a correct offset.

    Raises:
        InputError: limits out of range, or no question to train on.
    """
    from tqdm import tqdm

    encoder = PairEncoder(tokenizer)
    encoder.check(limits)
    files = open_writers(folder, vocab_size, chars=np.int32, example=np.int32, start=np.int32, end=np.int32)
    names = ("questions", "left_out", "cut_questions", "windows", "windows_with_answer", "tokens")
    counts = dict.fromkeys(names, 0)
    progress = tqdm(total=len(examples), desc="tokenising", unit=" questions", disable=None, file=sys.stderr)
    with arrays.completing(files.values()), progress:
        for begin in range(0, len(examples), CHUNK):
            chunk = np.arange(begin, min(begin + CHUNK, len(examples)))
            spans = examples.spans[chunk]
            progress.update(len(chunk))
            if training:
                usable = (spans[:, 0] >= 0) | ~examples.answerable[chunk]
                counts["left_out"] += int((~usable).sum())
                chunk, spans = chunk[usable], spans[usable]
            if not len(chunk):
                continue
            contexts, context_of = np.unique(examples.context_of[chunk], return_inverse=True)
            fields = make_windows(
                encoder,
                [examples.question(int(index)) for index in chunk],
                [examples.contexts[int(index)] for index in contexts],
                context_of,
                spans,
                limits,
            )
            fields["example"] = chunk[fields["example"]]
            fields["offsets"] = fields["offsets"][1:] + files["tokens"].rows
            for name, file in files.items():
                file.append(fields[name])
            counts["questions"] += len(chunk)
            counts["cut_questions"] += int(fields["cut"].sum())
            counts["windows_with_answer"] += int((fields["end"] > 0).sum())
    counts["windows"], counts["tokens"] = files["example"].rows, files["tokens"].rows
    if not counts["windows"]:
        raise InputError(f"no question to train on: none of {counts['left_out']} has an answer at its answer_start")
    (folder / "counts.json").write_text(json.dumps({**counts, "limits": asdict(limits)}), encoding="utf-8")


class Windows(TokenArrays):
    """Windows in memory or on disk, in batches.

    Attributes:
        chars: [T, 2] characters (first, last + 1) of each token in its context; -1 for others.
        example: [W] index of the window's question.
        start, end: [W] first and last token of the answer in the window; 0, 0 (the first token) for an answer that is
            not inside.
    """

    FIELDS = ("tokens", "types", "chars", "offsets", "example", "start", "end")

    chars: Array
    example: Array
    start: Array
    end: Array

    def check(self, vocab_size: int, questions: int | None = None) -> None:
        """Check that all tokens are of a vocabulary, windows of a question, and answers inside of their windows.

        Args:
            vocab_size: one more than the largest token id.
            questions: number of questions of the split; None: it is not checked.

        Raises:
            DamagedError: they are not.
        """
        super().check(vocab_size)
        folder = self.folder or Path()
        if questions is not None:
            arrays.check_range(self.example, 0, questions, folder / "example.npy")
        if (self.start < 0).any() or (self.end < self.start).any() or (self.end >= self.lengths).any():
            raise DamagedError(folder / "start.npy", "it has answers outside of their windows")

    @classmethod
    def of_records(
        cls,
        encoder: PairEncoder,
        records: Sequence[tuple[str, str]],
        limits: Limits,
        pad_id: int,
        uses_types: bool,
    ) -> Self:
        """Make the windows of (question, context) pairs without answers, such as those to predict, in memory."""
        encoder.check(limits)
        position: dict[str, int] = {}
        context_of = np.array([position.setdefault(context, len(position)) for _, context in records], np.int64)
        spans = np.full((len(records), 2), -1)
        fields = make_windows(encoder, [question for question, _ in records], list(position), context_of, spans, limits)
        if fields["cut"].any():
            logger.warning(
                "%d question(s) are longer than %d tokens and are truncated",
                int(fields["cut"].sum()),
                limits.max_query_length,
            )
        return cls(fields, pad_id, uses_types)

    def batch(self, windows: Sequence[int]) -> dict[str, Array]:
        """Return a batch of windows, padded to the longest of them, rounded up to a multiple of 16.

        Returns:
            input_ids, attention_mask, token_type_ids (if the tokenizer has several) [B, L]; start_positions,
            end_positions, window [B]; all int64.
        """
        index = np.asarray(windows, np.int64)
        batch = self.pad(index)
        batch["start_positions"] = self.start[index].astype(np.int64)
        batch["end_positions"] = self.end[index].astype(np.int64)
        batch["window"] = index
        return batch
