"""Questions and contexts as windows of tokens, with the answer's place in each.

A window is `[CLS] question [SEP] part of the context [SEP]` (or what the tokenizer makes of a pair). Contexts
longer than a window give several, which overlap by `stride` tokens. Every context is tokenised once, whatever
the number of its questions, and all arithmetic is on whole arrays.
"""

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from config.errors import InputError
from datamodules.storage import arrays
from datamodules.text.examples import Examples
from datamodules.text.padding import pad_batch

logger = logging.getLogger(__name__)

FORMAT = 1  # part of the cache key: raise it when what `write` writes changes
CHUNK = 2048  # questions at a time
FIELDS = ("tokens", "types", "chars", "offsets", "example", "start", "end")
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Limits:
    """Sizes in tokens.

    Attributes:
        max_length: of a window.
        stride: by which the windows of one context overlap.
        max_query_length: of a question; the rest of a longer one is cut off.
    """

    max_length: int = 384
    stride: int = 128
    max_query_length: int = 64


class PairEncoder:
    """A tokenizer, and how it joins a question and a context."""

    def __init__(self, file: Path) -> None:
        """Loads a tokenizer.

        Args:
            file: a `tokenizer.json`.

        Raises:
            InputError: if its pairs do not begin with a special token, where "no answer" could point to.
        """
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(file))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        pair = self.tokenizer.encode("a", "b")
        of = np.array([-1 if each is None else each for each in pair.sequence_ids])
        first, second = np.flatnonzero(of == 0), np.flatnonzero(of == 1)
        ids, types = np.array(pair.ids), np.array(pair.type_ids)
        if not len(first) or not len(second) or first[0] == 0 or first[0] > second[0]:
            raise InputError(
                "this tokenizer puts no special token before a question and its context; one as BERT's or "
                "RoBERTa's is needed"
            )
        parts = slice(0, first[0]), slice(first[-1] + 1, second[0]), slice(second[-1] + 1, None)
        self.before, self.between, self.after = (ids[part] for part in parts)
        self.types_before, self.types_between, self.types_after = (types[part] for part in parts)
        self.question_type, self.context_type = int(types[first[0]]), int(types[second[0]])

    @property
    def special(self) -> int:
        """Number of special tokens in a window."""
        return len(self.before) + len(self.between) + len(self.after)

    def encode(self, texts: Sequence[str]) -> tuple[Array, Array, Array]:
        """Tokens of many texts, on all cores.

        Returns:
            ids [T], characters [T, 2] (first, last + 1) of each token in its text, offsets [len(texts) + 1]
            into both.
        """
        encodings = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        offsets = np.zeros(len(encodings) + 1, np.int64)
        np.cumsum([len(each) for each in encodings], out=offsets[1:])
        total = int(offsets[-1])
        ids = np.fromiter(chain.from_iterable(each.ids for each in encodings), np.int64, total)
        flat = chain.from_iterable(chain.from_iterable(each.offsets for each in encodings))
        return ids, np.fromiter(flat, np.int64, 2 * total).reshape(-1, 2), offsets

    def check(self, limits: Limits) -> None:
        """Refuses limits that leave no room for the context beside the longest question."""
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
    """Windows of some questions.

    Args:
        encoder: the tokenizer.
        questions: [N] texts.
        contexts: [C] texts.
        context_of: [N] index of each question's context.
        spans: [N, 2] characters (first, last + 1) of each question's answer in its context; -1 where there is
            none.
        limits: sizes; see `Encoder.check`.

    Returns:
        The arrays of `Windows` by name, `example` counting from 0; and `cut` [N]: whether the question was
        too long.
    """
    asked, _, asked_at = encoder.encode(questions)
    tokens, chars, tokens_at = encoder.encode(contexts)
    context_of = np.asarray(context_of, np.int64)
    before, between, after = len(encoder.before), len(encoder.between), len(encoder.after)

    # How many windows, and which part of which context each holds.
    asked_length = np.minimum(np.diff(asked_at), limits.max_query_length)
    room = limits.max_length - encoder.special - asked_length
    length = np.diff(tokens_at)[context_of]
    step = room - limits.stride
    count = 1 + -(np.minimum(room - length, 0) // step)
    example = np.repeat(np.arange(len(questions)), count)
    begin = (arrays.ragged(np.zeros(len(count)), count)) * step[example]
    part = np.minimum(room[example], length[example] - begin)
    first = tokens_at[context_of[example]] + begin  # the window's first context token, among all of `tokens`

    # Filled kind by kind: each line is one assignment for all windows.
    question_length = asked_length[example]
    size = encoder.special + question_length + part
    offsets = np.concatenate(([0], np.cumsum(size)))
    at = offsets[:-1]
    total = int(offsets[-1])
    out = np.empty(total, np.int64)
    kinds = np.empty(total, np.uint8)
    where = np.full((total, 2), -1, np.int32)
    for position, ids, types in (
        (at, encoder.before, encoder.types_before),
        (at + before + question_length, encoder.between, encoder.types_between),
        (offsets[1:] - after, encoder.after, encoder.types_after),
    ):
        for shift, (token, kind) in enumerate(zip(ids, types, strict=True)):
            out[position + shift], kinds[position + shift] = token, kind
    there = arrays.ragged(at + before, question_length)
    out[there] = asked[arrays.ragged(asked_at[example], question_length)]
    kinds[there] = encoder.question_type
    head = before + question_length + between
    there, here = arrays.ragged(at + head, part), arrays.ragged(first, part)
    out[there], where[there] = tokens[here], chars[here]
    kinds[there] = encoder.context_type

    start, end = _targets(chars, tokens_at, context_of[example], np.asarray(spans)[example], first, part)
    inside = start >= 0
    return {
        "tokens": out,
        "types": kinds,
        "chars": where,
        "offsets": offsets,
        "example": example,
        "start": np.where(inside, start - first + head, 0),
        "end": np.where(inside, end - first + head, 0),
        "cut": np.diff(asked_at) > limits.max_query_length,
    }


def _targets(
    chars: Array, tokens_at: Array, context: Array, spans: Array, first: Array, part: Array
) -> tuple[Array, Array]:
    """First and last token of each window's answer, among all context tokens; -1 where it is not inside.

    As the Hugging Face question-answering recipe: the last token that begins no later than the answer, and
    the first that ends no earlier. Unlike its loops, this does not run past the window where the answer is
    its last token, and does not end before it starts where the answer is one character of several tokens.
    """
    start = np.full(len(first), -1, np.int64)
    end = start.copy()
    w = np.flatnonzero((spans[:, 0] >= 0) & (part > 0))
    if not len(w):
        return start, end
    low, high, last = spans[w, 0].astype(np.int64), spans[w, 1].astype(np.int64), (first + part - 1)[w]
    # One sorted array for all contexts: the context in the upper half of the number, the character in the
    # lower.
    of = np.repeat(np.arange(len(tokens_at) - 1), np.diff(tokens_at)) << 32
    begins = np.maximum.accumulate(of + chars[:, 0])
    ends = np.minimum.accumulate((of + chars[:, 1])[::-1])[::-1]
    base = context[w] << 32
    from_token = np.searchsorted(begins, base + low, side="right") - 1
    to_token = np.searchsorted(ends, base + high, side="left")
    inside = (chars[first[w], 0] <= low) & (chars[last, 1] >= high)
    from_token, to_token = np.minimum(from_token, last), np.maximum(to_token, first[w])
    start[w] = np.where(inside, np.minimum(from_token, to_token), -1)
    end[w] = np.where(inside, np.maximum(from_token, to_token), -1)
    return start, end


def write(folder: Path, examples: Examples, tokenizer: Path, vocab_size: int, limits: Limits, training: bool) -> None:
    """Writes the windows of a split into a cache entry, chunk by chunk.

    Args:
        folder: the entry that is being built.
        examples: the split.
        tokenizer: its `tokenizer.json`.
        vocab_size: decides whether token ids take two bytes or four.
        limits: sizes.
        training: leave out questions whose answers are not where they are said to be.
    """
    from tqdm import tqdm

    encoder = PairEncoder(tokenizer)
    encoder.check(limits)
    types = {
        "tokens": np.uint16 if vocab_size <= 1 << 16 else np.uint32,
        "types": np.uint8,
        "chars": np.int32,
        "offsets": np.int64,
        "example": np.int32,
        "start": np.int32,
        "end": np.int32,
    }
    files = {
        name: arrays.ArrayWriter(folder / f"{name}.npy", kind, 2 if name == "chars" else None)
        for name, kind in types.items()
    }
    files["offsets"].append([0])
    counts = {
        "questions": 0,
        "left_out": 0,
        "cut_questions": 0,
        "windows": 0,
        "windows_with_answer": 0,
        "tokens": 0,
    }
    progress = tqdm(total=len(examples), desc="tokenising", unit=" questions", disable=None, file=sys.stderr)
    with arrays.Writers(files.values()), progress:
        for begin in range(0, len(examples), CHUNK):
            chosen = np.arange(begin, min(begin + CHUNK, len(examples)))
            spans = examples.spans[chosen]
            progress.update(len(chosen))
            if training:
                usable = (spans[:, 0] >= 0) | ~examples.answerable[chosen]
                counts["left_out"] += int((~usable).sum())
                chosen, spans = chosen[usable], spans[usable]
            if not len(chosen):
                continue
            needed, context_of = np.unique(examples.context_of[chosen], return_inverse=True)
            made = make_windows(
                encoder,
                [examples.question(int(i)) for i in chosen],
                [examples.contexts[int(c)] for c in needed],
                context_of,
                spans,
                limits,
            )
            made["example"] = chosen[made["example"]]
            made["offsets"] = made["offsets"][1:] + files["tokens"].rows
            for name, file in files.items():
                file.append(made[name])
            counts["questions"] += len(chosen)
            counts["cut_questions"] += int(made["cut"].sum())
            counts["windows_with_answer"] += int((made["end"] > 0).sum())
    counts["windows"], counts["tokens"] = files["example"].rows, files["tokens"].rows
    if not counts["windows"]:
        raise InputError(f"no question to train on: none of {counts['left_out']} has an answer where it is said to be")
    about = {**counts, "limits": asdict(limits)}
    (folder / "counts.json").write_text(json.dumps(about), encoding="utf-8")


class Windows:
    """Windows in memory or on disk; makes batches of them.

    Attributes:
        tokens: [T] ids of all windows, special tokens included, no padding.
        types: [T] token type ids.
        chars: [T, 2] characters (first, last + 1) of each token in its context; -1 for others.
        offsets: [W + 1] window w is tokens[offsets[w]:offsets[w + 1]].
        example: [W] index of its question.
        start, end: [W] first and last token of the answer in the window; 0, 0 (the first token) where it is
            not inside.
        lengths: [W] tokens of each.
        counts: what was counted when they were written.
    """

    tokens: Array
    types: Array
    chars: Array
    offsets: Array
    example: Array
    start: Array
    end: Array

    def __init__(self, fields: dict[str, Array], pad_id: int, uses_types: bool, folder: Path | None = None) -> None:
        """Takes the arrays of `make` or of a folder."""
        self.pad_id, self.uses_types, self.folder = pad_id, uses_types, folder
        for name in FIELDS:
            setattr(self, name, fields[name])
        self.lengths = np.diff(self.offsets).astype(np.int32)
        # No batch is wider: the model may have no positions for it.
        self.longest = int(self.lengths.max(initial=0))
        self.counts: dict[str, Any] = {}

    @classmethod
    def open(cls, folder: Path, pad_id: int, uses_types: bool) -> Self:
        """Memory-maps what `write` wrote."""
        windows = cls({name: arrays.load(folder / f"{name}.npy") for name in FIELDS}, pad_id, uses_types, folder)
        windows.counts = json.loads((folder / "counts.json").read_text(encoding="utf-8"))
        return windows

    @classmethod
    def of_records(
        cls,
        encoder: PairEncoder,
        records: Sequence[tuple[str, str]],
        limits: Limits,
        pad_id: int,
        uses_types: bool,
    ) -> Self:
        """Windows, in memory, of (question, context) pairs without answers, such as those to predict."""
        encoder.check(limits)
        number: dict[str, int] = {}
        context_of = np.array([number.setdefault(context, len(number)) for _, context in records], np.int64)
        spans = np.full((len(records), 2), -1)
        made = make_windows(encoder, [question for question, _ in records], list(number), context_of, spans, limits)
        if made["cut"].any():
            logger.warning(
                "%d question(s) are longer than %d tokens and were cut",
                int(made["cut"].sum()),
                limits.max_query_length,
            )
        return cls(made, pad_id, uses_types)

    def __len__(self) -> int:
        return len(self.example)

    def __reduce__(self) -> Any:
        # To the workers of a loader goes the folder, not a copy of what is mapped.
        if self.folder is None:
            return type(self), ({name: getattr(self, name) for name in FIELDS}, self.pad_id, self.uses_types)
        return type(self).open, (self.folder, self.pad_id, self.uses_types)

    def batch(self, windows: Sequence[int]) -> dict[str, Array]:
        """Some windows, padded to the longest of them, rounded up to a multiple of 16.

        Returns:
            input_ids, attention_mask, token_type_ids (if the model takes them) [B, L]; start_positions,
            end_positions, window [B]; all int64.
        """
        chosen = np.asarray(windows, np.int64)
        types = self.types if self.uses_types else None
        batch = pad_batch(chosen, self.tokens, types, self.offsets, self.longest, self.pad_id)
        batch["start_positions"] = self.start[chosen].astype(np.int64)
        batch["end_positions"] = self.end[chosen].astype(np.int64)
        batch["window"] = chosen
        return batch
