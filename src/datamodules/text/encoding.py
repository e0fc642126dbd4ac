"""Tokens of texts, or of pairs of texts, truncated to a maximum length: the inputs of a text classifier."""

import json
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from config.errors import InputError
from datamodules.storage import arrays
from datamodules.text.labelled_texts import LabelledTexts
from datamodules.text.token_arrays import Array, TokenArrays, open_writers
from datamodules.text.tokenizer import PreparedTokenizer, encoding_errors

FORMAT = 1  # part of the cache key: increment it when `write` writes anything else
CHUNK = 2048  # texts at a time


class Special(NamedTuple):
    """Number of special tokens of a single text, and of a pair."""

    single: int
    pair: int


class TextEncoder:
    """A tokenizer that adds special tokens and truncates, as transformers' does with `truncation=True`.

    Attributes:
        tokenizer: of the tokenizers library.
        special: number of special tokens.
    """

    def __init__(self, tokenizer: PreparedTokenizer, max_length: int) -> None:
        """Load a tokenizer.

        Args:
            tokenizer: from the cache.
            max_length: maximum number of tokens of a text, or of a pair, including special tokens.

        Raises:
            InputError: a maximum that leaves no room beside the special tokens.
        """
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(tokenizer.folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.special = Special(*map(self.tokenizer.num_special_tokens_to_add, (False, True)))
        if max_length <= self.special.pair:
            raise InputError(
                f"data.max_length={max_length} leaves no room for a text beside {self.special.pair} special tokens"
            )
        self.tokenizer.enable_truncation(max_length)

    def encode(self, records: Sequence[tuple[str, str]]) -> dict[str, Array]:
        """Tokenise (text, second text or "") pairs, on all cores.

        Returns:
            tokens [T], types [T], offsets [N + 1]: see `EncodedTexts`; cut [N]: whether a text was truncated.
        """
        inputs = [(text, pair) if pair else text for text, pair in records]
        with encoding_errors():
            encodings = self.tokenizer.encode_batch_fast(inputs)
        offsets = np.zeros(len(encodings) + 1, np.int64)
        np.cumsum([len(encoding) for encoding in encodings], out=offsets[1:])
        total = int(offsets[-1])
        return {
            "tokens": np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int64, total),
            "types": np.fromiter(chain.from_iterable(encoding.type_ids for encoding in encodings), np.uint8, total),
            "offsets": offsets,
            "cut": np.array([bool(encoding.overflowing) for encoding in encodings], np.bool_),
        }


def write(folder: Path, texts: LabelledTexts, tokenizer: PreparedTokenizer, max_length: int) -> None:
    """Write the tokens of a split into a cache entry, chunk by chunk.

    Args:
        folder: the entry that is being built.
        texts: the split.
        tokenizer: from the cache.
        max_length: maximum number of tokens of a text; longer ones are truncated.
    """
    from tqdm import tqdm

    encoder = TextEncoder(tokenizer, max_length)
    files = open_writers(folder, tokenizer.vocab_size)
    cut = 0
    progress = tqdm(total=len(texts), desc="tokenising", unit=" texts", disable=None, file=sys.stderr)
    with arrays.completing(files.values()), progress:
        for first in range(0, len(texts), CHUNK):
            chunk = range(first, min(first + CHUNK, len(texts)))
            encoded = encoder.encode([(texts.text(index), texts.pair(index)) for index in chunk])
            encoded["offsets"] = encoded["offsets"][1:] + files["tokens"].rows
            for name, file in files.items():
                file.append(encoded[name])
            cut += int(encoded["cut"].sum())
            progress.update(len(chunk))
    counts = {"texts": len(texts), "cut_texts": cut, "tokens": files["tokens"].rows}
    (folder / "counts.json").write_text(json.dumps(counts), encoding="utf-8")


class EncodedTexts(TokenArrays):
    """Tokens of texts, in memory or on disk, in batches.

    Attributes:
        labels: int64 [N] classes; None: unknown.
    """

    labels: npt.NDArray[np.int64] | None = None

    @classmethod
    def of_records(
        cls, tokenizer: PreparedTokenizer, records: Sequence[tuple[str, str] | str], max_length: int
    ) -> Self:
        """Encode texts without labels, such as those to predict, in memory.

        Args:
            tokenizer: from the cache.
            records: texts, or (text, second text) pairs; a second text "" is ignored.
            max_length: maximum number of tokens of a text; longer ones are truncated.
        """
        pairs = [(record, "") if isinstance(record, str) else record for record in records]
        encoded = TextEncoder(tokenizer, max_length).encode(pairs)
        texts = cls(encoded, tokenizer.pad_id, tokenizer.uses_types)
        texts.counts = {"texts": len(texts), "cut_texts": int(encoded["cut"].sum()), "tokens": len(texts.tokens)}
        return texts

    def __reduce__(self) -> tuple[Any, ...]:
        return (*super().__reduce__(), {"labels": self.labels})

    def batch(self, indices: Sequence[int]) -> dict[str, Array]:
        """Return a batch of texts, padded to the longest of them, rounded up to a multiple of 16.

        Returns:
            input_ids, attention_mask, token_type_ids (if the tokenizer has several) [B, L]; labels (if known), index [B];
            all int64.
        """
        index = np.asarray(indices, np.int64)
        batch = self.pad(index)
        if self.labels is not None:
            batch["labels"] = self.labels[index]
        return batch | {"index": index}
